# make demo: the example from end to end.  make test: what CI runs, a few minutes.  make test-slow: the tests marked slow.
# make test-browser: the pages in Chromium, which CI runs, too.
# make soak: a server under load, kills, a full disk and bad clients, for 20 minutes.
PYTHON ?= python3
VENV ?= $(or $(VIRTUAL_ENV),.venv)
# Which build of PyTorch to install: see README.md, "Install".
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

# make docs: the docs as a site in the folder `site`, with search. To read it: python -m http.server -d site
.PHONY: setup demo check test test-browser test-slow soak docs record-example

setup: $(VENV)/.fingerpost-ready

$(VENV)/.fingerpost-ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/fingerpost run examples/hr-router --yes --epochs 0 --learning-curve
	$(BIN)/fingerpost predict examples/hr-router/models/student "payslip oct pls, havent got it"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	$(BIN)/pytest --durations=25

test-browser: setup
	$(BIN)/pytest -m browser

test-slow: setup
	$(BIN)/pytest -m slow

soak: setup
	$(BIN)/python benchmarks/soak.py

docs: setup
	$(BIN)/zensical build

# Ask a live teacher for the example's answers again: make record-example GGUF=model.gguf
record-example: setup
	$(BIN)/python examples/hr-router/record.py $(GGUF)
