# `make quickstart`: from a bare clone to a chat model and its report. PYTHON is any Python from 3.11.
# Memory in huge pages, where Linux has them on request: a training step on CPUs took up to a tenth less (benchmarks/notes.md).
PYTHON ?= python3
BIN := .venv/bin

SECOND ?= python3.13

SITTING ?= A
RUN ?= runs/tiny
MODEL ?= $(RUN)/8_ppo

.PHONY: quickstart install test test-slow test-peers test-second check gpu site pictures format lock lock-peers

quickstart: install
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/jaxtrain run configs/quickstart

install: .venv/.installed

# Pinned packages by hash first, then this package in place, built by the pinned setuptools.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("jaxtrain needs Python 3.11 or newer, not " + sys.version.split()[0] + "; name one: make install PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# By files, the longest first, on as many processes as there are cores, at most three: each holds about 3 GB,
# one for a moment 8.
TOGETHER := -n auto --maxprocesses 3 --dist loadfile --no-loadscope-reorder

test: install
	$(BIN)/python -m pytest $(TOGETHER)

test-slow: install
	$(BIN)/python -m pytest -m 'slow and not gpu'

# Beside PyTorch's libraries, in an environment of their own (Python 3.11; about 1.5 GB with a CPU build of torch).
test-peers: .venv-peers/.installed
	.venv-peers/bin/python -m pytest -m 'peers and not slow' $(TOGETHER)

.venv-peers/.installed: requirements.lock requirements-peers.lock pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	.venv-peers/bin/python -m pip install --quiet torch==2.13.0
	.venv-peers/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements-peers.lock
	.venv-peers/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# With another Python, for which the lock has a newer jax: whatever runs on devices, sampling and serving first.
test-second: .venv-second/.installed
	.venv-second/bin/python -m pytest $(TOGETHER) \
		tests/decode tests/serve tests/model tests/finetune tests/test_cli.py

.venv-second/.installed: requirements.lock pyproject.toml
	$(SECOND) -m venv .venv-second
	.venv-second/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	.venv-second/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# On a host with an NVIDIA GPU and no network: PYTHON has jax with its CUDA plugin, and what `gpu.py --dry` names.
gpu:
	$(PYTHON) benchmarks/gpu.py $(SITTING)

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

# The documents as pages, and the notebooks as they run on a recipe's artifacts (RUN), without network; a dead
# link, a name that is gone or a cell that fails ends it.
site: install
	$(BIN)/jaxtrain run configs/$(notdir $(RUN))
	JAXTRAIN_RUN=$(abspath $(RUN)) $(BIN)/mkdocs build --strict --quiet

# README's report, rating page and chat, of a run of a recipe and of a model that talks (needs chromium-driver).
pictures: install
	$(BIN)/jaxtrain run configs/$(notdir $(RUN))
	$(BIN)/python docs/pictures/make.py $(RUN) $(MODEL)

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Every package of `pip install -e .[dev]`, for every Python from 3.11 and every platform.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade \
		--python-version 3.11 --fork-strategy requires-python \
		--no-emit-index-url --no-header --no-annotate --output-file requirements.lock

# What the peers need beyond requirements.lock; torch itself is pinned above, since its builds differ in their hash.
lock-peers:
	grep -v "sys_platform == '" requirements.lock | grep -oE '^[A-Za-z0-9._-]+==[^ ]+' | grep -v '^python-dateutil' \
		| sort -u -t= -k1,1 > .venv/have.txt  # what Linux has; lm-eval wants dateutil 2
	echo 'torch==2.13.0 transformers>=5 peft trl==1.12.0 datatrove==0.10.1 lm-eval[api]==0.4.13 reasoning-gym==0.1.25' | tr ' ' '\n' > .venv/peers.in
	$(BIN)/uv pip compile .venv/peers.in --constraints .venv/have.txt --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --output-file requirements-peers.lock \
		$$(sed -E 's/==.*//; s/^/--no-emit-package /' .venv/have.txt) \
		$$($(BIN)/uv pip compile .venv/peers.in --python-version 3.11 --no-annotate --no-header --quiet \
			| grep -oE '^(torch|triton|nvidia|cuda)[A-Za-z0-9._-]*' | sed 's/^/--no-emit-package /')
