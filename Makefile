# Everything here needs Python 3.11 or newer, make and a shell; it goes to .venv and build, nowhere else.
#
#   make demo    run notebooks/01-first-steps.ipynb on a personal cluster of this machine
#   make test    ruff, mypy and all tests
#
# PYTHON=/path/to/python3 chooses the Python that .venv is made with.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
CACHE := $(VENV)/cache

export MYPY_CACHE_DIR := $(CACHE)/mypy
export RUFF_CACHE_DIR := $(CACHE)/ruff
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench setup clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(READY) ## run the first notebook; says where the result and its picture are
	@$(PY) notebooks/execute.py notebooks/01-first-steps.ipynb --to build/demo --picture mandelbrot.png

test: $(READY) ## ruff, mypy and all tests; says what was skipped and why
	@sh .ci/openssh.sh
	@checks=0; \
	$(PY) -m ruff check . || checks=1; \
	$(PY) -m mypy || checks=1; \
	$(PY) -m pytest -q -o cache_dir=$(CACHE)/pytest $(PYTEST); tests=$$?; \
	if [ $$checks -ne 0 ]; then echo "make test: ruff or mypy has complaints; they are above the tests" >&2; fi; \
	[ $$checks -eq 0 ] && [ $$tests -eq 0 ]

lint: $(READY) ## ruff and mypy only
	@$(PY) -m ruff check .
	@$(PY) -m mypy

bench: $(READY) ## measure a personal cluster of two workers (BENCH=--json for programs)
	@$(PY) -m p2p_ipython.cli bench --workers 2 $(BENCH)

setup: $(READY) ## only make .venv

clean: ## remove .venv and build
	rm -rf $(VENV) build

$(READY): pyproject.toml .ci/venv.sh
	@sh .ci/venv.sh $(VENV)
	@touch $@
