# Every target works on its own on a fresh clone: the first use installs into .venv, with uv where it is there, else pip.
PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) .ci/setup.py
# Left out: embedded_judge.py and coverage.py take long and need gold data; their heads say how to run them.
LONG := benchmarks/embedded_judge.py benchmarks/coverage.py
BENCHES ?= $(filter-out $(LONG),$(sort $(wildcard benchmarks/*.py)))
.DEFAULT_GOAL := help
.PHONY: help demo test lint static bench view clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo:  ## judge a sample eval set with the embedded model, offline, after installing what that needs (no torch)
	@$(SETUP) demo
	@$(BIN)/judge demo
	@echo '  first: source $(BIN)/activate   (puts the command judge on your path)' >&2

test: static  ## install everything, then lint, check types and run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(PYTEST)

lint: static  ## ruff, mypy and the test of the architecture
	$(BIN)/python -m pytest -q tests/test_architecture.py

static:
	@$(SETUP) test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench:  ## run the benchmarks that finish in minutes and print their ratios
	@$(SETUP) test
	@set -e; for script in $(BENCHES); do echo "== $$script"; $(BIN)/python $$script; done

view:  ## open the dashboard in the browser
	@$(SETUP) view
	@$(BIN)/judge view

clean:  ## remove .venv, caches and build output; runs in .judge stay
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis test-output
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
