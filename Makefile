# `make run` and `make test` set up everything they need on a fresh machine with Python 3.11 or newer.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint types contracts bench locks clean

run: $(VENV)/.run
	@$(BIN)/dspex serve --config examples/dspex.yaml --data-dir .dspex

test: $(VENV)/.dev
	@$(BIN)/python -m tests.run

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit("DSPex needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) can't make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The lock is installed with hashes, then the project itself without looking anything up.
$(VENV)/.run: locks/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing DSPex into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: locks/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing DSPex and its development tools into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run

lint: $(VENV)/.dev
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: $(VENV)/.dev
	@$(BIN)/mypy

contracts: $(VENV)/.dev
	@$(BIN)/lint-imports

# Needs uv. Hashes only: where packages come from is the business of the machine that installs them.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
locks:
	$(LOCK) pyproject.toml -o locks/serve.txt
	$(LOCK) pyproject.toml --extra dspy --extra jobs --extra data --extra postgres --extra redis --extra otlp --extra sentry --group build -o locks/run.txt
	$(LOCK) pyproject.toml --extra dspy --extra jobs --extra data --extra postgres --extra redis --extra otlp --extra sentry --group dev -o locks/dev.txt

clean:
	rm -rf $(VENV) .dspex build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
