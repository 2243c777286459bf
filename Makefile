# Two commands: `make run` and `make test`. Each creates what it lacks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Flower asks for older versions of some packages: it has an environment of its own.
FLOWER := .venv-flower
FLOWER_STAMP := $(FLOWER)/.installed

.PHONY: setup run test test-flower lint types pytest coverage clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "airtune needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev,secure]'
	@touch $(STAMP)

run: $(STAMP)
	$(BIN)/airtune run examples/quickstart.yaml

test: lint types pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

pytest: $(STAMP)
	@# One process for each core, with one thread each: tensors here are too small for more.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-flower: $(FLOWER_STAMP)
	@# One after another: these start processes of their own, and some wait for wall time.
	OMP_NUM_THREADS=1 $(FLOWER)/bin/python -m pytest tests/deploy

$(FLOWER_STAMP): pyproject.toml constraints-flower.txt
	@test -x $(FLOWER)/bin/python || $(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --constraint constraints-flower.txt \
		--editable '.[demo,flower]' hypothesis pytest
	@touch $(FLOWER_STAMP)

coverage: $(STAMP)
	@# Apart from test: tracing every line takes a quarter of the time again.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal \
		--cov --cov-report=term

clean:
	rm -rf $(VENV) $(FLOWER) .pytest_cache .mypy_cache .ruff_cache .coverage
