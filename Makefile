# The whole system in four words: make demo, make test, make bench. Needs Python 3.11 or newer and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-for-tests
# Without an NVIDIA driver the CPU build of torch will do, 0.2 GB instead of 3; asked for only where its index answers.
CPU_WHEELS := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || $(PYTHON) -c "import urllib.request as u; \
  u.urlopen('$(CPU_WHEELS)/torch/', timeout=3); print('--extra-index-url $(CPU_WHEELS)')" 2>/dev/null)
# Byte code is written when a module is first imported, not for every file that is installed: a minute less.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip install -qq --no-compile --disable-pip-version-check
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help demo install test lint bench clean

help:
	@echo "make install      put raysl into .venv"
	@echo "make demo         raw documents to a served, queried model, in .venv, on this machine"
	@echo "make test         ruff, mypy, plain tests, then those that start Ray"
	@echo "make lint         ruff and mypy"
	@echo "make bench        list the benchmarks; make bench-NAME runs one"
	@echo "make clean        remove .venv, runs and caches"

demo: $(STAMP)
	@$(BIN)/raysl demo

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "raysl needs Python 3.11 or newer, found $$($(PYTHON) --version). Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "installing into $(VENV), once (1 to 3 minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH_INDEX) "torch==2.13.*" "torchvision==0.28.*"
	@$(PIP) -e ".[dev]"
	@touch $@

$(TEST_STAMP): $(STAMP)
	@echo "installing what only tests need ..."
	@$(PIP) -e ".[test]"
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(TEST_STAMP)
	$(BIN)/python -m pytest -n 2 -m "not ray and not slow"
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "ray or slow"

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

bench-%: $(STAMP)
	@$(BIN)/python -m benchmarks $*

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
