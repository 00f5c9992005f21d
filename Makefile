# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := help
.SILENT:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

UV_VERSION := 0.13.9
PYTHON ?= python3.11
PY := .venv/bin/python
RUN := PYTHONPATH=operator:trainer_image:. $(PY)
CODE := operator trainer_image charts tests
export UV_PYTHON_DOWNLOADS := never

.PHONY: help
help: ## this list
	grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- environment -----------------------------------------------------------

.tools/uv-$(UV_VERSION)/bin/uv:
	echo "installing uv $(UV_VERSION)"
	$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { apt-get -qq update && apt-get -qqy install $(notdir $(PYTHON))-venv; } # Debian's is apart
	$(PYTHON) -m venv .tools/uv-$(UV_VERSION)
	.tools/uv-$(UV_VERSION)/bin/pip install --quiet uv==$(UV_VERSION)

.venv/.synced: .tools/uv-$(UV_VERSION)/bin/uv pyproject.toml uv.lock
	echo "installing the locked Python environment into .venv (6.5 GB)"
	.tools/uv-$(UV_VERSION)/bin/uv sync --quiet --frozen --python $(PYTHON)
	touch $@

.PHONY: env
env: .venv/.synced ## install the locked Python environment into .venv

include tests/cluster/cluster.mk

# --- the main job ----------------------------------------------------------

.PHONY: demo
demo: env cluster-up ## run the whole chain on real images in a local Kubernetes
	$(RUN) -m tests.e2e.demo

.PHONY: demo-clean
demo-clean: cluster-clean ## delete the demo, its cluster and everything they left
	rm -rf demo-out

# --- tests -----------------------------------------------------------------

.PHONY: test
test: ## lint, unit, integration and one chain end to end, with minutes per tier
	$(MAKE) --no-print-directory env
	$(RUN) -m tests.tiers lint unit integration e2e

.PHONY: test-full
test-full: ## test, and what needs another chain or another binary
	$(MAKE) --no-print-directory env
	$(RUN) -m tests.tiers lint unit integration e2e full

.PHONY: test-unit
test-unit: env ## pure functions and loopback services: seconds
	$(PY) -m pytest tests/unit

.PHONY: test-integration
test-integration: env ## real API server, S3 server and vLLM
	$(PY) -m pytest tests/integration -m "not full"

.PHONY: test-e2e
test-e2e: env ## the chain on the local cluster
	$(PY) -m pytest tests/cluster tests/e2e -m "not full"

.PHONY: lint
lint: env ## ruff and pyright
	.venv/bin/ruff check $(CODE)
	.venv/bin/ruff format --check $(CODE)
	.venv/bin/pyright

.PHONY: manifests
manifests: env ## write CRDs, reference and OpenAPI from the models, and the chart from the manifests
	$(RUN) -m r1reward_api.crd manifests/crd
	$(RUN) -m r1reward_api.reference docs/reference.md
	$(RUN) -m r1reward_trainer.verifier.openapi docs/verifier-openapi.json
	$(RUN) -m charts.generate

# --- benchmarks and soak --------------------------------------------------

.PHONY: bench-digits
bench-digits: env cluster-up ## 3 seeds of the example task, with the longer-SFT control
	$(RUN) -m tests.bench.digits

.PHONY: bench-verifier
bench-verifier: env ## rewards a second, beside one blocking judge call after another
	$(RUN) -m tests.bench.verifier

MINUTES ?= 60
SEED ?=

.PHONY: soak
soak: env cluster-up ## an hour of random faults on small jobs (MINUTES=60, SEED=n)
	$(RUN) -m tests.e2e.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: bench-scoring
bench-scoring: env ## latency that the scoring front adds to bare vLLM
	$(RUN) -m tests.bench.scoring

.PHONY: bench-evaluate
bench-evaluate: env ## pairs a second of evaluate beside a batch-1 generate loop
	$(RUN) -m tests.bench.evaluate

ROWS ?= 1000000

.PHONY: bench-rows
bench-rows: env ## peak of memory of a million rows through prepare (ROWS=n)
	$(RUN) -m tests.bench.rows --rows $(ROWS)

.PHONY: bench-gpu
bench-gpu: ## loss and a training step of a 3B model on one GPU; needs torch and transformers
	PYTHONPATH=operator:trainer_image:. $$(test -x $(PY) && echo $(PY) || echo python3) -m tests.bench.gpu
