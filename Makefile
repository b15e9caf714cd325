# Snowmelt. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CACHE  := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/snowmelt
UV_VERSION := 0.13.9
UV     := $(CACHE)/uv-$(UV_VERSION)/bin/uv
VENV   := .venv
BIN    := $(VENV)/bin
# Whoever set up an index for pip wants it for uv as well.
export UV_DEFAULT_INDEX ?= $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)
ifeq ($(UV_DEFAULT_INDEX),)
unexport UV_DEFAULT_INDEX
endif
export UV_NATIVE_TLS := true
export RAY_USAGE_STATS_ENABLED := 0
# Much of a test is waiting for a Ray or an API server to start, so two at a time pay even on two cores.
TEST_PROCESSES ?= 2

.PHONY: help setup demo test test-quick test-cluster lint generate verify bench bench-operator bench-stage bench-cache bench-scale images e2e e2e-core e2e-inputs e2e-yours cluster-up cluster-down test-gpu clean

help: ## what there is to make
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## a virtual environment in .venv with everything (packages are cached outside the checkout)

$(UV):
	@echo "installing uv $(UV_VERSION) into $(dir $(@D))"
	@$(PYTHON) -m venv "$(dir $(@D))"
	@"$(@D)/pip" install --quiet "uv==$(UV_VERSION)"

$(VENV)/.ready: pyproject.toml constraints.txt | $(UV)
	@test -x $(BIN)/python || "$(UV)" venv --quiet --python "$(PYTHON)" $(VENV)
	@echo "installing the packages of pyproject.toml (the first time this fetches about 3 GB)"
	@"$(UV)" pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## a FineTuneJob from kubectl apply to a model, on this machine
	@exec $(BIN)/python -m hack.demo

test: setup ## every test; the slow ones need Go (or KUBEBUILDER_ASSETS)
	$(BIN)/python -m hack.kube binaries
	$(BIN)/python -m hack.kube helm
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-quick: setup ## only the tests that need neither Ray nor an API server nor Helm
	$(BIN)/python -m pytest -m "not controlplane and not ray and not helm" $(PYTEST_ARGS)

lint: setup ## style, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

generate: setup ## write the CRD, the chart's schema and README, the catalog of architectures and the API reference
	$(BIN)/python -m hack.generate

verify: setup ## fail when a generated file is stale
	$(BIN)/python -m hack.generate --check

$(VENV)/.bench: $(VENV)/.ready
	@echo "installing the packages of the extra bench"
	@"$(UV)" pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

bench: $(VENV)/.bench ## training against its peers; writes docs/benchmarks.md (hours; BENCH_ARGS="--help" to choose cells)
	$(BIN)/python -m bench.suite $(BENCH_ARGS)

bench-operator: setup ## 1,000 FineTuneJobs against a real API server; writes docs/benchmarks-operator.md
	$(BIN)/python -m hack.kube binaries
	$(BIN)/python -m bench.operator $(BENCH_ARGS)

bench-stage: setup ## one stage at each cut against a plain loop, in turns; writes docs/benchmarks-stage.md
	$(BIN)/python -m bench.stage $(BENCH_ARGS)

bench-cache: setup ## the same fits with the activation cache and without; writes docs/benchmarks-cache.md
	$(BIN)/python -m bench.cached $(BENCH_ARGS)

bench-scale: $(VENV)/.bench ## time and memory from 1,000 images to 60,000; writes docs/benchmarks-scale.md
	$(BIN)/python -m bench.scale $(BENCH_ARGS)

images: setup ## the operator's and the trainer's image, with buildah (IMAGES_ARGS="--base IMAGE" to choose the base)
	$(BIN)/python -m hack.images $(IMAGES_ARGS)

# Built first, so that one sees it: the first time this takes a quarter of an hour, which no test's time limit is for.
e2e-inputs: setup
	$(BIN)/python -m hack.kube cluster-check
	$(BIN)/python -m hack.kube cluster-binaries
	$(BIN)/python -m hack.kube helm
	$(BIN)/python -m hack.images

e2e: e2e-inputs ## everything on a real cluster, faults and all (Linux, root; up to 90 minutes)
	$(BIN)/python -m pytest tests_e2e -m "not short" $(PYTEST_ARGS)

e2e-core: e2e-inputs ## the part of it that CI runs
	$(BIN)/python -m pytest tests_e2e/product -m core $(PYTEST_ARGS)

e2e-yours: setup ## what of it breaks nothing, on a cluster of yours (KUBECONFIG=… OPERATOR_IMAGE=… TRAINER_IMAGE=…)
	@test -n "$(KUBECONFIG)" || { echo "e2e-yours: set KUBECONFIG to the cluster's"; exit 2; }
	SNOWMELT_E2E_KUBECONFIG="$(KUBECONFIG)" SNOWMELT_E2E_OPERATOR_IMAGE="$(OPERATOR_IMAGE)" \
	SNOWMELT_E2E_TRAINER_IMAGE="$(TRAINER_IMAGE)" $(BIN)/python -m pytest tests_e2e/product -m "not short" $(PYTEST_ARGS)

cluster-up: setup ## a real cluster of two nodes with KubeRay, from source (Linux, root)
	$(BIN)/python -m hack.kube cluster-up

cluster-down: setup ## end that cluster without a trace
	$(BIN)/python -m hack.kube cluster-down

test-cluster: setup ## the tests of that cluster (Linux, root)
	$(BIN)/python -m pytest tests_e2e/cluster

test-gpu: setup ## the tests of training on a GPU (on a machine that has one)
	$(BIN)/python -m pytest tests_gpu $(PYTEST_ARGS)

clean: ## remove what was made in this checkout (not the cache)
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
