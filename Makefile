# make plan     plan WRN-28-10 at a tenth of its parameters, emit it, train it for one step
# make test     run the tests
# make check    everything that CI asks for
# make regen    plan and emit generated/ again
# make bench    run the benchmarks
#
# Each makes the environment first; it needs python3 with venv and pip, no more.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: plan test lint types outputs check regen bench clean

PYTHON ?= python3
VENV ?= .venv
# Named as a pair: the newest torch alone may have no matching torchvision yet.
TORCH ?= torch==2.14.1 torchvision==0.29.1
JOBS ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.ready
WRN := tests/zoo/wide_resnet.py:wide_resnet --arg depth=28 --arg widen_factor=10

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

plan: $(READY)
	mkdir -p build
	$(BIN)/npas plan $(WRN) --budget 10% --input 2x3x32x32 -o build/wrn28_10.plan.json
	$(BIN)/npas emit build/wrn28_10.plan.json -o build/wrn28_10.py
	$(BIN)/python tests/benchmarks/one_step.py build/wrn28_10.py

test: $(READY)
	$(BIN)/python -m pytest -q -n $(JOBS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

outputs: $(READY)
	$(BIN)/npas check generated/

# One after the other, so that the summary of the tests comes last.
check: $(READY)
	$(MAKE) --no-print-directory lint types outputs
	$(MAKE) --no-print-directory test

regen: $(READY)
	$(BIN)/npas plan $(WRN) --budget 10% --input 2x3x32x32 \
		-o generated/wrn28_10_10pct.plan.json --module generated/wrn28_10_10pct.py

bench: $(READY)
	$(BIN)/python -m pytest -q tests/benchmarks

clean:
	rm -rf build dist *.egg-info
