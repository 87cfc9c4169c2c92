# `make help` lists the verbs. Everything they need is set up by scripts/setup (virtual environment, Debian packages).
PYTHON ?= python3
BIN := .venv/bin
CODE := src tests benchmarks examples scripts

.PHONY: help setup check test demo bench format clean
help:  ## list the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup:  ## make .venv and install what is missing on this machine
	@PYTHON=$(PYTHON) scripts/setup

check: setup  ## formatting, lint, strict types, import layers
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: check  ## everything that CI runs
	@PYTHON=$(PYTHON) scripts/setup test
	@$(BIN)/pytest -n 4 --dist loadgroup

demo:  ## start a cluster, run the sample application in it, say what to do next
	@PYTHON=$(PYTHON) scripts/setup demo
	@$(BIN)/python examples/demo.py

bench: setup  ## run every benchmark; each prints JSON
	@for b in $(filter-out benchmarks/benchmark_%,$(wildcard benchmarks/*.py)); do $(BIN)/python $$b || exit 1; done

format: setup  ## format and fix what can be fixed
	@$(BIN)/ruff format $(CODE) && $(BIN)/ruff check --fix $(CODE)

clean:  ## remove the virtual environment and caches
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
