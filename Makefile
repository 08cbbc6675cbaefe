# make plan     plan WRN-28-10 at a tenth of its parameters, emit it, train it for one step
# make test     run the tests, but for slow ones
# make check    everything that CI asks for: linters, types, generated files, tests
# make slow     run the tests that take more than ten seconds each
# make matrix   run all cases of the table of models and budgets, of which make test has a sample
# make optimal  compare the solver with enumeration, instance by instance
# make scale    time the solver at depths up to 1,536 blocks, and on large models
# make coverage plan models of torchvision, timm, transformers, and compare what is emitted
# make allocators compare the solver's objective with every baseline's, on many models and budgets
# make budgets  allocate from the least budget to 400 %, and check use and worth
# make zoo      plan ten architectures from their dense count to a small budget, and measure them
# make bench    train an emitted model and its dense original
# make quality train the planner's plans and the baselines on one task, and tabulate accuracy
# make calibrate correlate the objective of random plans with the accuracy they are trained to
# make regen    plan and emit generated/ again, and bring README's outputs up to date
# make clean    remove what was built, but for the environment
#
# Each makes the environment in .venv first; it needs python3 with venv and pip, no more.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: plan test check lint types outputs slow matrix optimal scale coverage allocators budgets zoo \
	bench quality calibrate regen clean

PYTHON ?= python3
VENV ?= .venv
# Named as a pair: the newest torch alone may have no matching torchvision yet.
TORCH ?= torch==2.14.1 torchvision==0.29.1
JOBS ?= 2
BENCH ?= --dense --seeds 0
COVERAGE ?=
ALLOCATORS ?=
BUDGETS ?=
ZOO ?=
QUALITY ?=
CALIBRATE ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
READY := $(VENV)/.ready
WRN := tests/zoo/wide_resnet.py:wide_resnet --arg depth=28 --arg widen_factor=10

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

slow: $(READY)
	$(BIN)/python -m pytest -q -n $(JOBS) -m "slow and not (matrix or optimal)"

matrix: $(READY)
	$(BIN)/python -m pytest -q -n $(JOBS) -m matrix

optimal: $(READY)
	$(BIN)/python -m pytest -q -n $(JOBS) -m optimal

scale: $(READY)
	mkdir -p build
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/scale.py --json build/scale.json

coverage: $(READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.coverage --jobs $(JOBS) $(COVERAGE)

allocators: $(READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.allocators $(ALLOCATORS)

budgets: $(READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.budgets $(BUDGETS)

zoo: $(READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.architectures $(ZOO)

bench: $(READY)
	$(BIN)/python tests/benchmarks/digits.py $(BENCH)

quality: $(READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.quality $(QUALITY)

calibrate: $(READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.calibration $(CALIBRATE)

regen: $(READY)
	$(BIN)/python tests/list_operations.py
	mkdir -p generated
	$(BIN)/npas plan $(WRN) --budget 10% --input 2x3x32x32 \
		-o generated/wrn28_10_10pct.plan.json --module generated/wrn28_10_10pct.py
	$(BIN)/npas plan torchvision:resnet50 --budget 10% \
		-o generated/resnet50_10pct.plan.json --module generated/resnet50_10pct.py
	$(BIN)/python tests/test_readme.py

clean:
	rm -rf build dist *.egg-info

# The project itself is always named by its path, ./, never looked up in an index.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install --editable './[test]'
	touch $@
