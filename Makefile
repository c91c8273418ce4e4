# Two commands on a fresh machine: `make demo` and `make test`. Both need git, make, Python >= 3.11 and a package index.
# The shipped models are installed from the checkout, as a directory beside Bothways.
PYTHON ?= python3
MODELS := packages/bothways-models
VENV := .venv
BIN := $(VENV)/bin
# what is imported is compiled to bytecode then, once and not at each start; what is not, never
unexport PYTHONDONTWRITEBYTECODE
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable $(MODELS)
# processes that run tests, each on one thread, a file's tests all in one of them; 0: none but pytest's own
WORKERS ?= 2
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
FAST ?= tests/data tests/tasks tests/verbs tests/nets/test_names.py tests/nets/test_help.py tests/test_batch.py \
	tests/test_errors.py tests/test_house_rules.py tests/test_json.py tests/test_parts.py tests/test_patches.py \
	tests/test_suite.py

NATIVE := bothways/native/*.cpp bothways/native/*.h tests/native/*.cpp
COVERED ?= tests
BENCH ?= all --minutes 60

LINT := lint-types lint-rooms lint-style  # each beside the others, the longest first
.PHONY: help demo setup lint fast test docs notebooks coverage sanitize bench wheels hooks clean
.PHONY: $(LINT)

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## installs Bothways and shows every verb on small data
	$(BIN)/bothways demo

setup: $(VENV)/.dev ## the environment that the commands below use, which make it where it is missing

lint: $(VENV)/.dev ## style, types, which room may use which, the house's rules for names, C++ and JavaScript
	@$(MAKE) --no-print-directory --jobs $(or $(filter-out 0,$(WORKERS)),1) --keep-going --output-sync $(LINT)
lint-types:
	$(BIN)/mypy
lint-rooms:
	$(BIN)/lint-imports --no-logo
lint-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/house_rules.py
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/oxlint --deny-warnings bothways

fast: $(VENV)/.dev ## the tests worth their time while working; tests/README.md says which those of a file are
	$(BIN)/python $(PYTEST) -m "not slow and not browser and not ray" $(FAST)

test: lint ## lint, then every test
	$(BIN)/python $(PYTEST)

# to be read by: $(BIN)/python -m http.server -d site
docs: $(VENV)/.docs ## the pages of docs/ as a site in site/, which asks nothing from the network
	$(BIN)/python tools/site_pages.py
	$(BIN)/zensical build --strict

# MODEL and MASKED_MODEL are other models than those of the hub that the notebooks name
notebooks: $(VENV)/.notebooks ## notebooks/*.py as .ipynb, run in full
	cd notebooks && ../$(BIN)/jupytext --set-kernel python3 --to ipynb --execute *.py

coverage: $(VENV)/.dev ## lines and branches that tests reach, in htmlcov/; of some tests: make coverage COVERED=tests/tasks
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html $(COVERED)

sanitize: $(VENV)/.dev ## the compiled code under the sanitizers of addresses and undefined behaviour
	$(BIN)/python tools/sanitize.py

bench: $(VENV)/.dev ## all benchmarks that fit into an hour, into docs/benchmarks.md; one of them: make bench BENCH=latency
	$(BIN)/python benchmarks/$(firstword $(BENCH)).py $(wordlist 2,99,$(BENCH))

wheels: $(VENV)/.dev ## a wheel with compiled code, one without, and an sdist, in dist/
	$(BIN)/python -m hatchling build -t sdist -t wheel
	BOTHWAYS_PURE=1 $(BIN)/python -m hatchling build -t wheel

hooks: $(VENV)/.dev ## git runs the quick part of lint at each commit (pre-commit)
	$(BIN)/pre-commit install

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml $(MODELS)/pyproject.toml constraints.txt
	$(BIN)/python $(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/.notebooks: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml $(MODELS)/pyproject.toml constraints.txt
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	touch $@

clean: ## removes the environment, the compiled libraries and what was built
	rm -rf $(VENV) bothways-demo dist site htmlcov .coverage bothways/native/*.so
