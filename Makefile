# make run    see it work: the sample stream through a broker and the flow
# make dashboard   see it live in a browser; INSTANCES=2000 makes it a fleet
# make test   every test that needs no more than pip
# make test-faults   what dies, in the long form: about an hour
# make lint   lint, format check, types
# make bench  what a record costs, beside the tutorial's flow and others; BENCH=--quick: a glance
# make pictures   draw the pictures of the live page again (needs chromium)
# make format, make clean
.DEFAULT_GOAL := help
.PHONY: help run dashboard pictures test test-faults lint format bench clean

# The newest Python that Bytewax and River both have wheels for; PYTHON=... names another.
PYTHON ?= $(shell for python in python3.12 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
INSTANCES ?= 8

help:
	@sed -n 's/^# //p' Makefile

run: .venv/run
	@$(BIN)/python -m dataflow demo

dashboard: .venv/dashboard
	@$(BIN)/python -m dataflow demo --dashboard --instances $(INSTANCES)

pictures: .venv/dev
	@$(BIN)/python -m pytest tests/test_dashboard_pictures.py --pictures docs/images

test: .venv/dev
	@$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

test-faults: .venv/dev
	@$(BIN)/python -m pytest tests/test_faults.py --faults long --timeout 3600

bench: .venv/bench/done
	@.venv/bench/bin/python benchmarks/throughput.py $(BENCH)
	@.venv/bench/bin/python benchmarks/start.py $(filter --quick,$(BENCH))
	@.venv/bench/bin/python benchmarks/snapshots.py $(filter --quick,$(BENCH))
	@.venv/bench/bin/python benchmarks/detectors.py $(filter --quick,$(BENCH))

lint: .venv/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find dataflow -name "*.so" -delete

.venv/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: Python 3.11 or 3.12 is needed and not found: install one, or say make PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { \
		echo "error: $(PYTHON) is not Python 3.11 or 3.12, which Bytewax and River need: say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "error: $(PYTHON) cannot make a virtual environment: on Debian and Ubuntu install python3-venv" >&2; exit 1; }

# What is installed follows pyproject.toml; the stamps say when it was last looked at.
# So does what is compiled, which would otherwise stay as it was before an edit.
COMPILED := hatch_build.py $(wildcard dataflow/detectors/*.py dataflow/detectors/*/*.py)

.venv/run: pyproject.toml $(COMPILED) | .venv/bin/python
	@echo "installing into .venv (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[broker]'
	@touch $@

.venv/dashboard: pyproject.toml $(COMPILED) | .venv/bin/python
	@echo "installing into .venv (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[broker,dashboard]'
	@touch $@ .venv/run

# Apart from the rest: the peers hold back the versions of what both need.
.venv/bench/done: pyproject.toml $(COMPILED) | .venv/bin/python
	@echo "installing into .venv/bench (once, about a minute)"
	@$(PYTHON) -m venv .venv/bench
	@.venv/bench/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[broker,bench]'
	@touch $@

.venv/dev: pyproject.toml $(COMPILED) | .venv/bin/python
	@echo "installing into .venv (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/run .venv/dashboard
