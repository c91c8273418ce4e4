# Two commands on a fresh machine: `make demo` and `make test`. Both need git, make, Python >= 3.11 and a package index.
# The shipped models are installed from the checkout, as a directory beside Bothways.
PYTHON ?= python3
MODELS := packages/bothways-models
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo lint test docs notebooks clean

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

test: lint
	$(BIN)/python -m pytest

# the pages of docs/ as a site in site/, which asks nothing from the network; to read it: $(BIN)/python -m http.server -d site
docs: $(VENV)/.docs
	$(BIN)/zensical build --strict

# notebooks/*.py as .ipynb, run in full; MODEL and MASKED_MODEL are other models than those of the hub that they name
notebooks: $(VENV)/.notebooks
	cd notebooks && ../$(BIN)/jupytext --to ipynb --execute *.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml $(MODELS)/pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable $(MODELS) --editable '.[demo]'
	touch $@

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/.notebooks: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml $(MODELS)/pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable $(MODELS) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) bothways-demo site
