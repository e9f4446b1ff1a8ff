# The two commands of this project are `make demo` and `make test`.
#   PYTHON=python3.12      which interpreter makes .venv (3.11, 3.12 or 3.13)
#   PIP_FLAGS=...          extra options for pip, e.g. an index with CPU builds of torch:
#                          PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt
INPUTS := pyproject.toml constraints.txt
# one process a core, of one thread each
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# The floor of torch (2.5.1) is not among the floors that `make test-lowest` installs: for Linux, PyPI has it as a CUDA
# build alone (about 0.9 GB, and 2 GB of CUDA libraries). Where an index with CPU builds is at hand, LOWEST_TORCH=2.5.1 and
# PIP_FLAGS as above test it as well, as .github/workflows/ci.yml does.
LOWEST_TORCH ?= 2.13.0

# The page of `hemalum review`, built from web/ by Node.
PAGE := src/hemalum/review/static/index.html
apt = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1); }
PAGE_SOURCES := $(shell find web -name node_modules -prune -o -type f -print)

.DEFAULT_GOAL := help
.PHONY: help demo test lint page test-page programs test-lowest docs notebooks clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed  ## install, then segment a real image and show where the results are
	$(BIN)/hemalum demo -o demo

test: $(VENV)/.installed-test programs  ## install the extra `test`, then lint, types and the whole suite
	$(MAKE) --no-print-directory lint test-page
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

lint: $(VENV)/.installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

page: $(PAGE)  ## build the page of `hemalum review` (Node 18 or later)

test-page: $(PAGE)  ## types and unit tests of the page
	cd web && npm run --silent check && npm test --silent

# Node builds the page, Chromium runs its tests. Where root may install packages they come by themselves.
programs:
	@command -v npm >/dev/null || $(call apt,nodejs npm) || \
	  { echo "error: install Node.js 18 or later with npm: it builds the page of hemalum review" >&2; exit 2; }
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || $(call apt,chromium) || \
	  $(BIN)/python -m playwright install chromium || \
	  { echo "error: install Chromium: the tests of the page run in it" >&2; exit 2; }

test-lowest:  ## the fast tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	$(MAKE) --no-print-directory VENV=.venv-lowest .venv-lowest/.installed-lowest
	OMP_NUM_THREADS=1 .venv-lowest/$(notdir $(BIN))/python -m pytest -n auto --dist loadfile -m "not slow"

docs: $(VENV)/.installed-docs  ## install the extra `docs`, then build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: $(VENV)/.installed-test  ## run the notebooks of docs/tutorials and keep what their cells show
	$(BIN)/python tools/run_notebook.py

clean:  ## remove the environments, caches and what demo, docs and page made
	rm -rf web/node_modules src/hemalum/review/static $(VENV) .venv-lowest demo site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that exists already is kept; pip only adds what is missing.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: hemalum needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(VENV)/pyvenv.cfg
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: $(INPUTS) | $(VENV)/pyvenv.cfg
	$(PIP) -e ".[test]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(INPUTS) | $(VENV)/pyvenv.cfg
	$(PIP) -e ".[docs]"
	@touch $@ $(VENV)/.installed

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	@touch $@

$(PAGE): $(PAGE_SOURCES) web/node_modules/.package-lock.json
	cd web && npm run build

# uv resolves, pip installs: the lowest versions that fit together, without the CUDA libraries that torch asks for.
$(VENV)/.installed-lowest: pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet uv
	echo torch==$(LOWEST_TORCH) > $(VENV)/torch.txt
	$(BIN)/python -m uv pip compile pyproject.toml --extra test --quiet --no-header --no-annotate \
	  --resolution lowest-direct -c $(VENV)/torch.txt | grep -vE '^(torch|triton|nvidia-.*|cuda-.*)==' > $(VENV)/floors.txt
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c $(VENV)/floors.txt -c $(VENV)/torch.txt -e ".[test]"
	@touch $@
