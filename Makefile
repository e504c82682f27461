# Targets for people and for CI. Everything is installed into $(VENV); nothing else on the machine is touched.
VENV ?= .venv
PYTHON ?= python3
DATA ?= ../shared/data
OUT ?= trained
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

export PATH := $(CURDIR)/$(BIN):$(PATH)
export TOKENIZERS_PARALLELISM := true

.DEFAULT_GOAL := help
.PHONY: help setup check test test-slow test-lucene test-mteb test-all demo bench bench-terms results clean

help:  ## show this list
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and pinned: left to choose, pip takes the newest build with gigabytes of CUDA
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e '.[cpu,offline]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) -e '.[bench]'
	@touch $@

$(VENV)/.lucene: $(VENV)/.dev
	$(PIP) -e '.[lucene]'
	@touch $@

$(VENV)/.mteb: $(VENV)/.dev
	$(PIP) -e '.[mteb]'
	@touch $@

setup: $(VENV)/.dev  ## make .venv and install the package with its tools

check: setup  ## formatting, lint, types
	ruff format --check .
	ruff check .
	mypy

test: check  ## checks and the default tests
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile

test-slow: setup  ## the long proofs: hundreds of kills, real collections
	HF_HUB_OFFLINE=1 python -m pytest -m 'slow or shared' --durations=10

test-lucene: $(VENV)/.lucene  ## the view on Lucene, and our English analysis against Lucene's
	HF_HUB_OFFLINE=1 python -m pytest -m lucene

test-mteb: $(VENV)/.mteb  ## our systems in MTEB, its tasks and its format here
	HF_HUB_OFFLINE=1 python -m pytest tests/bench/test_mteb.py

demo: $(VENV)/.run  ## index the standard library's documentation, search it, measure it
	HF_HUB_OFFLINE=1 ./examples/stdlib/demo.sh

bench: $(VENV)/.bench  ## speed beside what a user would use instead; writes docs/benchmarks.md
	HF_HUB_OFFLINE=1 python benchmarks/run.py --out docs/benchmarks.md

bench-terms: $(VENV)/.bench $(VENV)/.lucene  ## the inverted index beside other engines; writes docs/term_weights.md
	HF_HUB_OFFLINE=1 python benchmarks/term_weights.py $(DATA) --out docs/term_weights.md

results: setup  ## effectiveness on the collections in $(DATA); writes docs/results.md
	HF_HUB_OFFLINE=1 python benchmarks/results.py $(DATA) --out docs/results.md

recipe-%: setup  ## train into $(OUT) and test, hours on two cores: encoder, hmde, esimcse, student, nested, composition, mamba
	HF_HUB_OFFLINE=1 python benchmarks/recipes.py $* $(DATA) $(OUT)/$* --page docs/results.md

clean:  ## remove what the targets made
	rm -rf $(VENV) demo-output
