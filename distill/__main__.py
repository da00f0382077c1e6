"""`python -m distill`."""

from distill.cli.entry import run

run()
