"""Plugin packages for tests, installed for real or made up, and `distill` run as a process that finds them."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "plugins"


def environment(path: Sequence[Path] = (), **variables: str) -> dict[str, str]:
    """The environment of a process that finds the packages installed in the folders of `path`, and no hub."""
    ours = ("DISTILL_", "OPENAI_", "PYTHONPATH")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    where = os.pathsep.join(map(str, [*path, ROOT]))  # the checkout under test, whichever one is installed
    return environ | {"PYTHONPATH": where, "HF_HUB_OFFLINE": "1"} | variables


def distill(
    *argv: str | Path, path: Sequence[Path] = (), cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `distill` as a user does, with the packages in the folders of `path` installed."""
    return subprocess.run(
        [sys.executable, "-m", "distill", *map(str, argv)],
        env=environment(path, **variables),
        cwd=cwd or tempfile.gettempdir(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def make_up(folder: Path, name: str, source: str | None, *, version: str = "1.0", value: str = "") -> Path:
    """Make a distribution `distill-NAME` with the entry point `NAME`, as pip would leave it in `folder`.

    Args:
        folder: to be put on the path.
        name: of the plugin; its module is `NAME_plugin`.
        source: the module's text; None leaves the module out.
        version: the distribution's.
        value: what the entry point refers to, where it is not the module.
    """
    module = f"{name}_plugin"
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None:
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"distill_{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: distill-{name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[distill]\n{name} = {value or module}\n")
    return folder


def pip_install(target: Path, *packages: Path) -> None:
    """Install source folders, or wheels, into `target`, from this machine alone: with the build tools that are here."""
    with tempfile.TemporaryDirectory() as scratch:  # setuptools writes beside the sources
        copies = [
            shutil.copytree(package, Path(scratch) / package.name) if package.is_dir() else package
            for package in packages
        ]
        options = ["--no-deps", "--no-build-isolation", "--target", target, *copies]
        if importlib.util.find_spec("pip"):
            command = [sys.executable, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", *options]
        else:
            command = ["uv", "pip", "install", "--offline", "--python", sys.executable, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"installing needs pip or uv, and setuptools>=77:\n{done.stdout}{done.stderr}")


@functools.cache
def install_all() -> Path:
    """Install all of `plugins/*` once a session; gives the folder to put on the path."""
    target = Path(tempfile.mkdtemp(prefix="distill-plugins-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    pip_install(target, *sorted(PLUGINS.glob("*/")))
    return target
