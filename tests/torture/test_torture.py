"""`make torture` in its short form: nothing is lost, paid twice or wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 30


@pytest.mark.slow
def test_kills_faults_races_and_interrupts_lose_nothing():
    words = [sys.executable, str(Path(__file__).parent), "--seconds", str(SECONDS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    print(done.stdout, done.stderr, sep="\n")  # pytest shows it with a failure
    assert done.returncode == 0
