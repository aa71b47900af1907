# Needs Python 3.11 or newer, make and pip; nothing else. Everything is installed into .venv, each extra once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench clean
.NOTPARALLEL:

# generated tissue -> tags -> train -> score -> predict -> runs/demo/report.html
demo: .venv/.core
	$(BIN)/eosin demo

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not slow"

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.bench
	set -e; for script in $(sort $(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$script; done

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# .venv/.core, .venv/.test, .venv/.dev, .venv/.bench: written when that set of packages is installed
.venv/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing eosin ($*) into .venv. The first time this takes minutes: torch alone is several hundred MB."
	@echo "To see what it is doing: tail -f .venv/pip.log"
	$(BIN)/python -m pip install -q --disable-pip-version-check --log .venv/pip.log -c constraints.txt -e ".$(filter-out [core],[$*])"
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
