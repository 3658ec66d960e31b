# Needs python3 (3.10 or newer, with venv) and make; `demo` also needs npm when the weights' release is out of reach.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Every test computes on one thread, so that two processes fill two cores.
PYTEST_ARGS ?= -n 2 --dist worksteal
DEMO_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow lint docs hooks browser clean
.DELETE_ON_ERROR:

help:  ## what can be made here
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## .venv with everything for development

# The stamp is written last, so that an interrupted install is taken up again.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: $(STAMP)  ## the demo: clips, W4A4, one table and the folder runs/demo
	$(BIN)/ptq4vm quantize data=demo model=rvm_mobilenetv3 bits=w4a4 method=ptq4vm preset=quick run_dir=runs/demo $(DEMO_ARGS)

lint: $(STAMP)  ## ruff, mypy and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)  ## documents and API reference, checked strictly, into build/docs
	$(BIN)/mkdocs build --quiet --clean

hooks: $(STAMP)  ## lint before every commit (pre-commit)
	$(BIN)/pre-commit install

# Tests of pages (the report's, `ptq4vm web`'s) look at them in Chromium, and skip where there is none. Never fails.
browser:
	@have() { for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	    command -v $$name >/dev/null 2>&1 && return 0; done; return 1; }; \
	if ! have && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    export DEBIAN_FRONTEND=noninteractive; \
	    install="timeout 300 apt-get install -y -qq --no-install-recommends chromium"; \
	    $$install >/dev/null 2>&1 || { timeout 120 apt-get update -qq && $$install; } >/dev/null 2>&1; \
	fi; \
	have || echo "no Chromium here: tests of pages will be skipped"

test: lint docs browser  ## lint, docs, then the whole test suite
	$(BIN)/pytest $(PYTEST_ARGS)

test-slow: $(STAMP)  ## the other cases of tests that take seconds each
	$(BIN)/pytest $(PYTEST_ARGS) -m slow

clean:  ## remove everything made here, runs too
	rm -rf $(VENV) build dist runs multirun outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
