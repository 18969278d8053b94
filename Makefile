# Everything starts from nothing: each target makes .venv and installs into it what is not there yet.
#
#   make song    20 seconds of music from the embedded default, in song.wav
#   make test    the fast tests; make test-slow and make test-gpu run the others
#   make style   what a change must pass before it is committed
#
# PYTHON=python3.12 picks the interpreter that .venv is made of, PIP_ARGS is passed on to pip install.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
DURATION ?= 20
SEED ?= 0
SONG ?= song.wav

VENV := .venv
BIN := $(VENV)/bin
CODE := src tests examples benchmarks
# tinysoundfont is the synthesiser of the chorales. Its only dependency, PyAudio, is for playing through a sound card and
# needs portaudio to build, so it is left out.
SYNTHESISER := --no-deps "tinysoundfont>=0.3.6"

.PHONY: help song test test-slow test-gpu style lint format types install install-dev hooks clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Stamps: an installation is repeated only when pyproject.toml or .venv changed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[dev,songs]"
	$(BIN)/python -m pip install $(PIP_ARGS) $(SYNTHESISER)
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

song: $(VENV)/.installed
	$(BIN)/fast-jukebox generate --duration $(DURATION) --seed $(SEED) --output $(SONG)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow and not gpu" $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

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
