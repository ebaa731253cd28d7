# `make quickstart`: from a bare clone to a chat model and its report. PYTHON is any Python from 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart install test test-slow check format lock

quickstart: install
	$(BIN)/jaxtrain run configs/quickstart

install: .venv/.installed

# Pinned packages by hash first, then this package in place, built by the pinned setuptools.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("jaxtrain needs Python 3.11 or newer, not " + sys.version.split()[0] + "; name one: make install PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m 'slow and not gpu'

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Every package of `pip install -e .[dev]`, for every Python from 3.11 and every platform.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade \
		--python-version 3.11 --fork-strategy requires-python \
		--no-emit-index-url --no-header --no-annotate --output-file requirements.lock
