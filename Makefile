# make figures | test | lab | check | release | bench | docs | clean; each creates .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
SUITE ?= digits

.PHONY: figures test lab check release bench docs clean

figures: .venv/ready
	$(BIN)/fidlib figures --suite $(SUITE)

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal

lab: .venv/ready
	$(BIN)/fidlib lab

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

# As check and test, and every published picture is of today's code.
release: export FIDLIB_RELEASE = 1
release: check test

bench: figures
	$(BIN)/python benchmarks/embed_speed.py
	$(BIN)/python benchmarks/figure_stages.py

docs: .venv/ready
	$(BIN)/python -c 'import fidlib as fl; print(fl.measures.catalogue.page(), end="")' > docs/measures.md

# Made whole or not at all: the stamp is written last, and older than pyproject.toml
# means that the dependencies may have changed.
.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fidlib needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf runs .pytest_cache .ruff_cache .import_linter_cache
