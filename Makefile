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
