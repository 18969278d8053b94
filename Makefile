# Everything starts from nothing: each target makes .venv and installs into it what is not there yet.
#
#   make song    20 seconds of music from the embedded default, in song.wav
#   make test    the fast tests; make test-slow and make test-gpu gpu run the others
#   make gpu     measure the full sizes on a GPU in MINUTES (10), into OUTPUT (runs/gpu)
#   make style   what a change must pass before it is committed
#
# TORCH=cpu installs torch's CPU build first, from TORCH_INDEX: much less to download, for a machine without a GPU.
# PYTHON=python3.12 picks the interpreter that .venv is made of, PIP_ARGS is passed on to pip install.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
DURATION ?= 20
SEED ?= 0
SONG ?=
MINUTES ?= 10
OUTPUT ?= runs/gpu
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
CODE := src tests examples demo benchmarks
# tinysoundfont is the synthesiser of the chorales. Its only dependency, PyAudio, is for playing through a sound card and
# needs portaudio to build, so it is left out.
SYNTHESISER := --no-deps "tinysoundfont>=0.3.6"

# Said before the installation where torch is not installed yet: how much comes, and the smaller way.
define SAY_SIZE
$(BIN)/python -c "import importlib.util as u; import sys; sys.exit(u.find_spec('torch') is not None)" && echo \
"torch and what it needs are about 2.8 GB to download and 5.2 GB installed, GPU libraries included. On a machine \
without a GPU, 'make $(or $(MAKECMDGOALS),install) TORCH=cpu' takes a small part of that." || true
endef

.PHONY: help torch-cpu song test test-slow test-gpu gpu style lint format types install install-dev hooks clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Stamps: an installation is repeated only when pyproject.toml or .venv changed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python $(if $(TORCH),torch-$(TORCH))
	@$(SAY_SIZE)
	$(BIN)/python -m pip install $(PIP_ARGS) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python $(if $(TORCH),torch-$(TORCH))
	@$(SAY_SIZE)
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[dev,songs]"
	$(BIN)/python -m pip install $(PIP_ARGS) $(SYNTHESISER)
	@touch $@ $(VENV)/.installed

torch-cpu: | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) --index-url $(TORCH_INDEX) "torch>=2.11,<2.12" "torchaudio>=2.11,<2.12"

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

song: $(VENV)/.installed
	$(BIN)/fast-jukebox generate --duration $(DURATION) --seed $(SEED) $(if $(SONG),--output $(SONG))

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow and not gpu" $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

gpu: $(VENV)/.installed-dev
	PYTHON=$(abspath $(BIN)/python) benchmarks/gpu.sh $(MINUTES) $(OUTPUT)

style: lint types

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

types: $(VENV)/.installed-dev
	$(BIN)/mypy

hooks: $(VENV)/.installed-dev
	$(BIN)/pre-commit install

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
