.DEFAULT_GOAL := help
.PHONY: help run dashboard install test test-python test-feeds test-deploy test-faults lint format bench pictures lock clean

# Python 3.11 or 3.12; if not given, scripts/create-venv searches the PATH, or gets one with uv.
PYTHON ?=
BIN := .venv/bin
INSTANCES ?= 8

# The versions that are known to work together: a new release of a dependency changes nothing
# here. The second name is for the build, where pip 25.3 and later do not look at the first.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Python writes bytecode when it first imports a file: 100 MB less, and a shorter installation. It
# must be allowed to: without bytecode, each of the many processes of the tests starts half as fast.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := -m pip install --quiet --no-compile
# The demos run from the checkout, which a .pth file puts on Python's path, with all that the package
# depends on but River.
WITHOUT_RIVER = $(BIN)/python scripts/list-requirements $(1) >.venv/requirements.txt \
	&& $(BIN)/python $(INSTALL) --requirement .venv/requirements.txt \
	&& pwd >"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
EDITABLE := HATCH_BUILD_NO_HOOKS=true $(BIN)/python $(INSTALL) --editable

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

run: .venv/run ## Demo: send a sample stream through a broker and the flow, print the anomalies
	@$(BIN)/python -m dataflow demo
	@echo "To continue: .venv/bin/python -m dataflow --help, or \`. .venv/bin/activate\` and then \`python -m dataflow --help\`."

dashboard: .venv/dashboard ## Demo in the browser; INSTANCES=2000 for a large fleet
	@$(BIN)/python -m dataflow demo --dashboard --instances $(INSTANCES)

install: .venv/install ## Install the package, its command ec2-anomaly, and River, which the demos leave out

test: .venv/dev ## Run the tests
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal

test-python: ## Run the tests on another Python: make test-python PYTHON=python3.13
	@[ -n "$(PYTHON)" ] || { echo "error: name the Python: make test-python PYTHON=python3.13" >&2; exit 1; }
	@$(MAKE) --no-print-directory .venv/$(notdir $(PYTHON))/done
	@.venv/$(notdir $(PYTHON))/bin/python -m pytest --numprocesses 2 --dist worksteal $(TESTS)

test-feeds: .venv/dev ## Build Telegraf and OpenTelemetry's Collector (needs Go) and read what they write
	@$(BIN)/python -m pytest tests/test_producers.py tests/test_feeds.py -m "" --timeout 3600

test-deploy: .venv/dev ## Build Helm (needs Go) and test the chart and deploy/
	@$(BIN)/python -m pytest tests/test_helm.py tests/test_deploy.py -m "" --timeout 3600

test-faults: .venv/dev ## Run the long form of the tests of faults and guarantees (about an hour)
	@$(BIN)/python -m pytest $(FAULTS:%=tests/test_%.py) --faults long -m "" --timeout 3600
FAULTS := guarantee exactly_once source silence incident_flow group_flow faults rules verdict_flow

lint: .venv/lint ## Check style, format, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: .venv/lint ## Fix style and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/bench/done ## Measure throughput beside other libraries; BENCH=--quick for a short run
	@.venv/bench/bin/python benchmarks/throughput.py $(BENCH)
	@.venv/bench/bin/python benchmarks/start.py $(filter --quick,$(BENCH))
	@.venv/bench/bin/python benchmarks/snapshots.py $(filter --quick,$(BENCH))
	@.venv/bench/bin/python benchmarks/detectors.py $(filter --quick,$(BENCH))

pictures: .venv/dev ## Draw the pictures of the live page in docs/ again (needs chromium and fonts-liberation)
	@$(BIN)/python -m pytest tests/test_dashboard_pictures.py --pictures docs/images

lock: .venv/bin/python ## Renew constraints.txt: the newest versions that pyproject.toml and Python 3.11 allow
	@$(BIN)/python $(INSTALL) uv
	@$(BIN)/uv $(LOCK) --extra dev --output-file constraints.txt
	@$(BIN)/uv $(LOCK) --extra broker --extra bench --output-file benchmarks/constraints.txt
LOCK := pip compile pyproject.toml --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	--quiet --no-annotate --custom-compile-command "make lock"

clean: ## Delete what make installed, compiled and cached
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find dataflow -name "*.so" -delete

.venv/bin/python:
	@scripts/create-venv .venv "$(PYTHON)"

# Each stamp is the time of an installation, repeated after a change of the dependencies.
DEPENDENCIES := pyproject.toml constraints.txt

.venv/run: $(DEPENDENCIES) scripts/list-requirements | .venv/compiled
	@echo "Installing into .venv (once, about a minute)"
	@$(call WITHOUT_RIVER,broker)
	@touch $@

.venv/dashboard: $(DEPENDENCIES) scripts/list-requirements | .venv/compiled
	@echo "Installing into .venv (once, about a minute)"
	@$(call WITHOUT_RIVER,broker dashboard)
	@touch $@ .venv/run

.venv/install: $(DEPENDENCIES) | .venv/compiled
	@echo "Installing into .venv (once, about a minute)"
	@$(EDITABLE) '.[broker]'
	@touch $@ .venv/run

.venv/lint: $(DEPENDENCIES) | .venv/bin/python
	@echo "Installing into .venv (once, about a minute)"
	@$(EDITABLE) '.[lint]'
	@touch $@

.venv/dev: $(DEPENDENCIES) | .venv/compiled
	@echo "Installing into .venv (once, about two minutes)"
	@$(EDITABLE) '.[dev]'
	@touch $@ .venv/run .venv/dashboard .venv/install .venv/lint

# Of all builds only this one compiles, in place; its wheel is not needed. It is repeated after a
# change of the files that are compiled: what was compiled before would run in place of the edit.
SOURCES := $(DEPENDENCIES) hatch_build.py \
	$(wildcard dataflow/detectors/*.py dataflow/detectors/*/*.py)

.venv/compiled: $(SOURCES) | .venv/bin/python
	@echo "Compiling the detectors into dataflow/detectors (if there is a C compiler)"
	@folder=$$(mktemp -d) && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir "$$folder" . \
		&& rm -r "$$folder"
	@touch $@

# Not into .venv: quixstreams needs older versions of what both use.
.venv/bench/done: export PIP_CONSTRAINT := benchmarks/constraints.txt
.venv/bench/done: $(SOURCES) benchmarks/constraints.txt | .venv/bin/python
	@echo "Installing into .venv/bench (once, about a minute)"
	@scripts/create-venv .venv/bench "$(PYTHON)"
	@.venv/bench/bin/python $(INSTALL) --editable '.[broker,bench]'
	@touch $@

# Not compiled: a build deletes what was compiled for the Python of .venv, since it may be older.
.venv/python%/done: export HATCH_BUILD_NO_HOOKS := true
.venv/python%/done: pyproject.toml constraints.txt
	@echo "Installing into .venv/python$* (once, about a minute)"
	@$(PYTHON) -m venv .venv/python$*
	@.venv/python$*/bin/python $(INSTALL) --editable '.[test]'
	@touch $@
