# make serve: set everything up and serve the bundled model on http://127.0.0.1:8000
# make test:  set everything up and run the checks and the fast tests
# make models: pretrain, tune and measure the bundled models anew, put them into checkpoints/ and write docs/models.md. Many hours;
#              stopped at any moment, it goes on where it was. DATA: the texts; WORK: where the runs lie; STRONGER: a directory of
#              other open weights to measure beside them; UNSEEN: a text of authors that none of them read. ARGS=--dry-run prints every command, ARGS="--only STEP" does one.
# Everything goes into .venv; needs Python 3.11+ and, for the set-up alone, a network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One build of PyTorch, so that every set-up is the same; a machine without an NVIDIA driver needs none of the gigabytes of
# CUDA libraries, which the CPU index leaves out. Where that index can't be reached (pip warns), the usual one serves. What
# PyTorch needs in turn comes with the next step.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The kernels are compiled when the package is installed: again when one of their sources has changed.
BUILT_FROM := pyproject.toml setup.py $(wildcard model/native/src/*)

DATA ?= ../shared/data
WORK ?= runs/models

.PHONY: serve test test-slow test-walks lint format models clean

serve: $(VENV)/.installed
	$(BIN)/homegrown serve $(ARGS)

test: lint
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow and not walk" $(ARGS)

test-walks: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m walk $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

models: $(VENV)/.installed-dev
	$(BIN)/python -m training.models --data "$(DATA)" --work "$(WORK)" $(if $(STRONGER),--stronger "$(STRONGER)") \
		$(if $(UNSEEN),--unseen "$(UNSEEN)") $(ARGS)

$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Homegrown needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-deps --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(BUILT_FROM)
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.torch $(BUILT_FROM)
	$(PIP) install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info model/native/*.so .pytest_cache .ruff_cache .hypothesis .import_linter_cache
