# Everything a newcomer needs: `make demo` and `make test`. Each sets up what it needs first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
NODES ?= 1
export PYTHONPATH :=
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-cluster soak-jobs soak-streams bench bench-cluster check format images lock generate setup clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Set up the checkout: uv, a virtual environment, locked dependencies
	@tools/setup.sh

demo: setup ## Train and serve two models, switch under load, run jobs, score a stream, break a model, stop (about a minute)
	@.venv/bin/modelyard demo

test: setup ## Run every test that needs no cluster, WORKERS at a time (default: one for each processor)
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-cluster: setup ## Run the tests that need Kubernetes, on NODES real nodes of their own at a time (default 1; root on Linux, Go; built once, ten minutes), or on the cluster that KUBECONFIG names
	@if [ -n "$$KUBECONFIG" ]; then $(PY) -m pytest --timeout 300 tests/cluster; else tests/cluster/node/node.sh run $(PY) -m pytest $(if $(filter-out 1,$(NODES)),-n $(NODES)) --timeout 300 tests/cluster; fi

soak-jobs: setup ## Score a million rows under faults with new seeds, SOAK_RUNS times for each store (default 5; a minute each)
	@for run in $$(seq $${SOAK_RUNS:-5}); do $(PY) -m pytest -q tests/local/jobs/test_exactly_once.py || exit 1; done

soak-streams: setup ## Score 200,000 records of a stream, each exactly once, under faults with new seeds, SOAK_RUNS times (default 20; three minutes each)
	@for run in $$(seq $${SOAK_RUNS:-20}); do MODELYARD_STREAM_RECORDS=$${MODELYARD_STREAM_RECORDS:-200000} \
		$(PY) -m pytest -q tests/local/streams/test_exactly_once.py -k exactlyOnce || exit 1; done

bench: setup ## Measure the inference front, the server at rest, the gateway, jobs and streams, side by side with their yardsticks
	@PYTHONPATH=src:tests $(PY) bench/front.py
	@PYTHONPATH=src:tests $(PY) bench/rest.py
	@PYTHONPATH=src:tests $(PY) bench/gateway.py
	@PYTHONPATH=src:tests $(PY) bench/gateway_scale.py
	@PYTHONPATH=src:tests $(PY) bench/jobs.py
	@PYTHONPATH=src:tests $(PY) bench/streams.py

bench-cluster: setup ## Measure an operator with a thousand services on a real Kubernetes node
	@tests/cluster/node/node.sh run env PYTHONPATH=.:src:tests $(PY) bench/operator_scale.py

check: setup ## Formatting, lint, types, import contracts, generated files
	@.venv/bin/ruff format --check --quiet . && .venv/bin/ruff check --quiet . && echo "format and lint: ok"
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache | tail -n 3
	@$(PY) -m tools.generate --check

format: setup ## Format the code and mend what can be mended
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format --quiet .

generate: setup ## Write the generated files anew (CRDs, schemas, list of reasons)
	@$(PY) -m tools.generate

images: setup ## Build the images (runtime, operator, gateway) as OCI archives in build/images, without a container daemon
	@$(PY) -m tools.images $(IMAGES)

lock: setup ## Resolve the dependencies anew
	@tools/lock.sh

clean: ## Remove what setup made
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
