"""A student, or a data set, as a repository on the Hugging Face Hub, behind the user's own token."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from distill import DataExportJob, DistillError, ExportJob


@dataclass(frozen=True, slots=True)
class HubOptions:
    """Where to, and who may see it.

    Attributes:
        repo: the repository, as OWNER/NAME; it is made if it is not there.
        private: whether only you may see it.
        dry_run: write the folder and list what would be uploaded, without contacting the Hub.
    """

    repo: str = ""
    private: bool = True
    dry_run: bool = False

    def __post_init__(self) -> None:
        owner, _, name = self.repo.partition("/")
        if not owner or not name or "/" in name:
            raise ValueError("repo must be the repository's name, such as -O repo=OWNER/NAME")


class HubExporter:
    """Copies a student with its model card, or transcripts with a data card, and uploads the copy."""

    def __init__(self, options: HubOptions):
        self.options = options

    def export(self, job: ExportJob) -> Sequence[str]:
        """Write and upload the student; see `distill.Exporter`.

        Raises:
            DistillError: the Hub cannot be reached, or refuses.
        """
        shutil.copytree(job.model, job.out, dirs_exist_ok=True)
        return self._publish(job, "model")

    def export_data(self, job: DataExportJob) -> Sequence[str]:
        """Write and upload the data set; see `distill.DataExportJob`.

        Raises:
            DistillError: the Hub cannot be reached, or refuses.
        """
        shutil.copyfile(job.data, job.out / job.data.name)
        (job.out / "README.md").write_text(job.card.replace("OWNER/NAME", self.options.repo), encoding="utf-8")
        return self._publish(job, "dataset")

    def _publish(self, job: ExportJob | DataExportJob, kind: str) -> list[str]:
        files = sorted(path for path in job.out.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files) / 1e6
        seen = "private" if self.options.private else "public"
        what = f"{len(files)} files ({size:.{0 if size >= 1 else 3}f} MB)"
        where = f"the {seen} {'repository' if kind == 'model' else 'data set'} {self.options.repo}"
        if self.options.dry_run:
            names = ", ".join(path.relative_to(job.out).as_posix() for path in files)
            return [f"dry run: would upload {what} to {where}: {names}"]
        job.note(f"uploading {what} to {where}")
        return [f"uploaded to {self._upload(job, kind)}"]

    def _upload(self, job: ExportJob | DataExportJob, kind: str) -> str:
        """Make the repository and upload the folder; returns its address."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

        api, repo = HfApi(), self.options.repo
        try:
            address = api.create_repo(repo, private=self.options.private, exist_ok=True, repo_type=kind)
            message = f"{job.name}, {'distilled' if kind == 'model' else 'collected'} with distill"
            api.upload_folder(repo_id=repo, folder_path=job.out, commit_message=message, repo_type=kind)
        except (LocalTokenNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if isinstance(error, LocalTokenNotFoundError) or status in (401, 403):
                what, hint = "your token does not allow it", "`hf auth login` with a token that may write"
            elif isinstance(error, OfflineModeIsEnabled):
                what, hint = "HF_HUB_OFFLINE is set", "unset it, or look with -O dry_run=true"
            else:
                what = f"HTTP {status}" if status else "it cannot be reached"
                hint = "try again later; -O dry_run=true writes the folder without the Hub"
            raise DistillError(f"the Hub did not take {repo}: {what}", hint) from None
        return str(address)
