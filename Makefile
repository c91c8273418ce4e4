# Two commands on a fresh machine: `make demo` and `make test`. Both need git, make, Python >= 3.11 and a package index.
# The shipped models are installed from the checkout, as a directory beside Bothways.
PYTHON ?= python3
MODELS := packages/bothways-models
VENV := .venv
BIN := $(VENV)/bin

NATIVE := bothways/native/*.cpp bothways/native/*.h tests/native/*.cpp
COVERED ?= tests
BENCH ?= latency

.PHONY: help demo setup lint test coverage sanitize bench wheels hooks clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## installs Bothways and shows every verb on small data
	$(BIN)/bothways demo

setup: $(VENV)/.dev ## the environment that the commands below use, which make it where it is missing

lint: $(VENV)/.dev ## style, types, which room may use which, the house's rules for names, C++ and JavaScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/house_rules.py
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/oxlint --deny-warnings bothways

test: lint ## lint, then every test
	$(BIN)/python -m pytest

coverage: $(VENV)/.dev ## lines and branches that tests reach, in htmlcov/; of some tests: make coverage COVERED=tests/tasks
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html $(COVERED)

sanitize: $(VENV)/.dev ## the compiled code under the sanitizers of addresses and undefined behaviour
	$(BIN)/python tools/sanitize.py

bench: $(VENV)/.dev ## a benchmark of benchmarks/: make bench BENCH=latency
	$(BIN)/python benchmarks/$(BENCH).py

wheels: $(VENV)/.dev ## a wheel with compiled code, one without, and an sdist, in dist/
	$(BIN)/python -m hatchling build -t sdist -t wheel
	BOTHWAYS_PURE=1 $(BIN)/python -m hatchling build -t wheel

hooks: $(VENV)/.dev ## git runs the quick part of lint at each commit (pre-commit)
	$(BIN)/pre-commit install

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml $(MODELS)/pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable $(MODELS) --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml $(MODELS)/pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable $(MODELS) --editable '.[dev]'
	touch $@

clean: ## removes the environment, the compiled libraries and what was built
	rm -rf $(VENV) bothways-demo dist htmlcov .coverage bothways/native/*.so
