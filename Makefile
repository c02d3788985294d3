# What can be done here. Each target sets up what it needs first, once; the work itself is in scripts and crates.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/.vigia/bin:$(PATH)
.DEFAULT_GOAL := help

##@ Help
.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install and build all that this machine lacks (scripts/setup.sh says which part is for what)
	@scripts/setup.sh all

##@ A real Kubernetes on this machine
NODES ?= 3
CLUSTER = cargo run --quiet --package vigia-e2e --bin vigia-cluster --

.PHONY: cluster-up
cluster-up: ## Bring a cluster up with NODES nodes (3); does nothing when it is up. VIGIA_CLUSTER names it
	@scripts/setup.sh cluster
	@$(CLUSTER) up --nodes $(NODES)

.PHONY: cluster-down
cluster-down: ## Take the cluster down; nothing of it is left
	@$(CLUSTER) down

##@ See it, use it
.PHONY: demo
demo: ## Show the whole loop on a cluster: KUBECONFIG's, or one on this machine
	@scripts/demo.sh

.PHONY: images
images: ## Build the static binaries and the images, as OCI archives in target/images
	@scripts/setup.sh demo
	@scripts/build-images.sh

##@ Change it
.PHONY: test
test: ## Lint, then tests: units, the API on a real API server, the loop up to an alert on a real cluster
	@scripts/setup.sh test cluster demo
	@scripts/test.sh

.PHONY: test-loop
test-loop: ## The whole loop on three nodes, and its faults, with assertions on the API's objects (15 min)
	@scripts/setup.sh test cluster demo
	@scripts/build-images.sh
	@cargo nextest run --package vigia-e2e --ignore-default-filter --filterset 'binary(closed_loop)'

.PHONY: lint
lint: ## rustfmt, clippy with warnings denied, shellcheck, helm lint
	@scripts/setup.sh test
	@scripts/lint.sh

.PHONY: generate
generate: ## Write what is made from the API's types: the chart's CRDs, docs/api.md
	@cargo run --quiet --package vigia-crds --features generate --bin vigia-generate

.PHONY: bench
bench: ## Measure and compare; rows in target/bench/*.json, a table at the end
	@scripts/setup.sh bench demo
	@scripts/bench.sh

.PHONY: eval
eval: ## Judge the estimators on the evaluation data; DATA names another folder of the same layout
	@scripts/setup.sh build
	@scripts/eval.sh
