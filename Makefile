# Everything a fresh machine needs beside this file: Python 3.11 or later, and make.
# `make demo`  simulate turbulence, train on it, score the forecasts, write the report
# `make test`  the tests, with coverage        `make lint types docs`  the other checks

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# More arguments for the demo (`make demo DEMO=--quick`) and for pytest (`make test TEST="tests/test_config.py --no-cov"`).
DEMO ?=
TEST ?=
# Two workers with one thread each: tests are small, and threads that fight over cores cost more than they bring.
WORKERS ?= 2

.PHONY: demo test lint types format docs clean
.DEFAULT_GOAL := demo

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs]' -c constraints.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/sciwm demo $(DEMO)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --cov=sciwm --cov-report=term:skip-covered --cov-fail-under=90 $(TEST)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy sciwm

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site dist build .pytest_cache .mypy_cache .ruff_cache .coverage
