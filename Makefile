# make quickstart   watch a tiny model learn arithmetic      make test   lint, types, tests
# make setup        only install, into .venv                make test-all   and those that take longest
# make help         this                                    make test-gpu   what only a GPU can show
PYTHON ?= python3
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE := # a run starts dozens of processes: Python may keep what it has compiled

.PHONY: help setup quickstart test test-all test-gpu test-quick lint mutation
help:
	@sed -n "s/^# //p" Makefile

setup:
	@$(PYTHON) scripts/setup.py

quickstart: setup
	@$(BIN)/rlvr train quickstart $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

test-quick: setup
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not slow and not long"

mutation: setup
	$(BIN)/python scripts/mutation $(ARGS)

test: lint test-quick # two at a time, as they wait more than they compute; one where they would share a GPU
	$(BIN)/python -m pytest -q -n $(if $(shell nvidia-smi -L 2>/dev/null),0,2) --dist loadfile -m "slow and not long"

test-all: lint test-quick
	$(BIN)/python -m pytest -q -m "slow or long"

test-gpu: setup
	$(BIN)/python -m pytest -q -m gpu
