"""`python -m distill`."""

from distill.cli.main import run

run()
