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

.PHONY: demo lint fast test docs notebooks clean

demo: $(VENV)/.demo
	$(BIN)/bothways demo

# style, types, which room may use which, and the house's own rules for names
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/house_rules.py
	$(BIN)/clang-format --dry-run --Werror bothways/native/*.cpp bothways/native/*.h tests/native/*.cpp

# the tests worth their time while working; tests/README.md says which those of a file are
fast: $(VENV)/.dev
	$(BIN)/python $(PYTEST) -m "not slow and not browser and not ray" $(FAST)

test: lint
	$(BIN)/python $(PYTEST)

# the pages of docs/ as a site in site/, which asks nothing from the network; to read it: $(BIN)/python -m http.server -d site
docs: $(VENV)/.docs
	$(BIN)/zensical build --strict

# notebooks/*.py as .ipynb, run in full; MODEL and MASKED_MODEL are other models than those of the hub that they name
notebooks: $(VENV)/.notebooks
	cd notebooks && ../$(BIN)/jupytext --to ipynb --execute *.py

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

clean:
	rm -rf $(VENV) bothways-demo site
