# make sweep: set up and measure. make test: set up and test. Both need nothing but Python 3.11+ and make.
PYTHON ?= python3
# Options for every pip run, e.g. PIP_ARGS="--index-url https://..." ; `profile doctor` explains where CPU builds of PyTorch come from.
PIP_ARGS ?=
BIN := .venv/bin
RESULTS ?= results

.PHONY: sweep test check format clean
.DEFAULT_GOAL := sweep

sweep: .venv/.core
	$(BIN)/profile sweep --results $(RESULTS) --out $(RESULTS)/report.html $(foreach a,$(PIP_ARGS),--pip-args=$(a))

test: .venv/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or later is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/.core: pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e .
	@# Where PYTHONDONTWRITEBYTECODE is set every command would compile its sources again: 0.4 s.
	@$(BIN)/python -m compileall -q profiler
	@touch $@

.venv/.dev: pyproject.toml .venv/.core
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
