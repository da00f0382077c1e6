"""The student as a repository on the Hugging Face Hub, behind the user's own token."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from distill import DistillError, ExportJob


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
    """Copies the student with its model card, and uploads the copy."""

    def __init__(self, options: HubOptions):
        self.options = options

    def export(self, job: ExportJob) -> Sequence[str]:
        """Write and upload the folder; see `distill.Exporter`.

        Raises:
            DistillError: the Hub cannot be reached, or refuses.
        """
        shutil.copytree(job.model, job.out, dirs_exist_ok=True)
        files = sorted(path for path in job.out.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files) / 1e6
        kind = "private" if self.options.private else "public"
        what = f"{len(files)} files ({size:.0f} MB)"
        if self.options.dry_run:
            names = ", ".join(path.relative_to(job.out).as_posix() for path in files)
            return [f"dry run: would upload {what} to the {kind} repository {self.options.repo}: {names}"]
        job.note(f"uploading {what} to the {kind} repository {self.options.repo}")
        return [f"uploaded to {self._upload(job)}"]

    def _upload(self, job: ExportJob) -> str:
        """Make the repository and upload the folder; returns its address."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

        api, repo = HfApi(), self.options.repo
        try:
            address = api.create_repo(repo, private=self.options.private, exist_ok=True)
            message = f"{job.name}, distilled with distill"
            api.upload_folder(repo_id=repo, folder_path=job.out, commit_message=message)
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
