# Everything here needs Python 3.11 or newer, make and a shell; it goes to .venv and build, nowhere else.
#
#   make demo    run notebooks/01-first-steps.ipynb on a personal cluster of this machine
#   make test    build the front end, then linters, type checkers and all tests
#
# PYTHON=/path/to/python3 chooses the Python that .venv is made with. The front end is built with the Node that is
# here, if it is 20.19 or newer, else with one that goes to .venv; demo needs none.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
CACHE := $(VENV)/cache

LAB := labextension
NPM := cd $(LAB) && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" jlpm
MODULES := $(LAB)/node_modules/.yarn-state.yml
LAB_SOURCES := $(shell find $(LAB)/src $(LAB)/style $(LAB)/schema -type f) \
	$(LAB)/package.json $(LAB)/build.mjs $(LAB)/tsconfig.json
WIDGETS := p2p_ipython/static/widget.js
EXTENSION := p2p_ipython/_labextension/package.json
INSTALLED := $(VENV)/share/jupyter/labextensions/@p2p-ipython/labextension
FRONT := $(WIDGETS) $(EXTENSION) $(INSTALLED)

export MYPY_CACHE_DIR := $(CACHE)/mypy
export RUFF_CACHE_DIR := $(CACHE)/ruff
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help demo lab test athome attacks strangers test-versions lint front screenshot bench setup clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(READY) ## run the first notebook; says where the result and its picture are
	@$(PY) notebooks/execute.py notebooks/01-first-steps.ipynb --to build/demo --picture mandelbrot.png

lab: $(FRONT) ## open JupyterLab on the notebooks, with the panel
	@$(PY) -m jupyterlab notebooks

test: $(READY) $(FRONT) ## build the front end; linters, type checkers and all tests; says what was skipped and why
	@sh .ci/openssh.sh
	@sh .ci/chromium.sh
	@sh .ci/bubblewrap.sh
	@sh .ci/william.sh
	@sh .ci/testsuite.sh $(PY)
	@checks=0; \
	$(PY) -m ruff check . || checks=1; \
	$(PY) -m mypy || checks=1; \
	($(NPM) lint) || checks=1; \
	($(NPM) test) || checks=1; \
	$(PY) -m pytest -q -n 2 --dist worksteal -o cache_dir=$(CACHE)/pytest $(PYTEST); tests=$$?; \
	if [ $$tests -eq 1 ]; then \
		echo "make test: what has failed runs once more, with nothing beside it; what passes now is a defect, too" >&2; \
		$(PY) -m pytest -q -rfEp --last-failed --last-failed-no-failures none -o cache_dir=$(CACHE)/pytest $(PYTEST); \
		tests=$$?; \
	fi; \
	if [ $$checks -ne 0 ]; then echo "make test: linters, type checkers or the front end's tests complain; see above" >&2; fi; \
	[ $$checks -eq 0 ] && [ $$tests -eq 0 ]

athome: $(READY) ## run 1,700 cells with and without %%p2p; print how many do the same (ATHOME=--show: the others; minutes)
	@$(PY) -m tests.athome.run $(ATHOME)

attacks: $(READY) ## attack a lender as a friend's task may, under each mechanism; print what succeeds (minutes)
	@sh .ci/sandboxes.sh
	@$(PY) tests/attacks/run.py $(ATTACKS)
	@P2P_ALL_INTERPRETERS=1 $(PY) -m pytest -q -o cache_dir=$(CACHE)/pytest tests/attacks/test_interpreters_of_lenders.py
	@P2P_FLOODS=1 $(PY) -m pytest -q -s -o cache_dir=$(CACHE)/pytest tests/friends/test_floods.py tests/friends/test_losses.py

strangers: $(READY) ## attack a board for a minute with 4,500 connections; print what its members notice (STRANGERS=--seconds 10)
	@$(PY) -W ignore tests/benchmarks/bench_strangers.py $(STRANGERS)

test-versions: $(READY) ## a short suite with the oldest and newest dependencies, for each Python here (VERSIONS=--lowest; minutes)
	@$(PY) .ci/versions.py $(VERSIONS)

lint: $(READY) $(MODULES) ## linters and type checkers only
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(NPM) lint

front: $(FRONT) ## build the front end, and have the JupyterLab of .venv use it

screenshot: $(READY) $(FRONT) ## take the README's picture anew, as the tests do
	@sh .ci/chromium.sh
	@$(PY) -m pytest -q -o cache_dir=$(CACHE)/pytest tests/browser/test_friends.py
	@cp build/screenshots/readme.png notebooks/panel.png

bench: $(READY) ## measure a personal cluster of two workers (BENCH=--json for programs)
	@$(PY) -m p2p_ipython.cli bench --workers 2 $(BENCH)

setup: $(READY) ## only make .venv

clean: ## remove .venv and all that was built
	rm -rf $(VENV) build p2p_ipython/static p2p_ipython/_labextension $(LAB)/lib $(LAB)/node_modules $(LAB)/.yarn

$(READY): pyproject.toml .ci/venv.sh
	@sh .ci/venv.sh $(VENV)
	@touch $@

$(MODULES): $(LAB)/package.json $(LAB)/yarn.lock $(LAB)/.yarnrc.yml | $(READY)
	@sh .ci/node.sh $(VENV)
	@echo "fetching what the front end is built with into $(LAB)/node_modules (a minute the first time)"
	@($(NPM) install --immutable) >$(VENV)/jlpm.log 2>&1 || { cat $(VENV)/jlpm.log >&2; exit 1; }
	@touch $@

$(WIDGETS): $(LAB_SOURCES) $(MODULES) | $(READY)
	@sh .ci/node.sh $(VENV)
	@$(NPM) build:widget
	@touch $@

$(EXTENSION): $(LAB_SOURCES) $(MODULES) | $(READY)
	@sh .ci/node.sh $(VENV)
	@$(NPM) build:types
	@$(NPM) build:lab
	@touch $@

$(INSTALLED): | $(EXTENSION)
	@mkdir -p $(@D)
	@ln -sfn "$(CURDIR)/$(dir $(EXTENSION))" $@
