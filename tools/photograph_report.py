"""Takes the picture of the quickstart's report for docs/compare.md, in a headless browser:

distill compare quickstart/run --data quickstart/held-out.jsonl --max-tokens 16 --html report.html
python tools/photograph_report.py report.html
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs/pictures/compare.png"


def photograph(page: Path, browser: str = "chromium", size: str = "900,820") -> None:
    """Write PICTURE, in the light scheme."""
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    words += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    words += ["--blink-settings=preferredColorScheme=1", f"--window-size={size}", f"--screenshot={PICTURE}"]
    with tempfile.TemporaryDirectory() as profile:
        words += [f"--user-data-dir={profile}", page.resolve().as_uri()]
        subprocess.run(words, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    photograph(Path(sys.argv[1]))
