# Everything a person or CI does here, from a fresh machine with Python 3.11 and make.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SEEDS ?= 200
START ?= 1
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help run test check unit sim mutants bench bench-against bench-changes bench-failover bench-gossip bench-many bench-repair bench-ring clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: $(STAMP) ## start three nodes on loopback, store and read a file, run until Ctrl-C
	@$(BIN)/python -m dynamo.demo

test: check unit ## linters, types and all tests

check: $(STAMP) ## linters and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(STAMP)
	$(BIN)/python -m pytest

mutants: $(STAMP) ## does the simulator find every seeded fault (ARGS="--only NAME")
	@$(BIN)/python -m tests.mutants $(ARGS)

sim: $(STAMP) ## simulate clusters on which things go wrong (SEEDS=200, START=1)
	@$(BIN)/python -m dynamo.sim --seeds $(SEEDS) --start $(START)

bench: $(STAMP) ## what a PUT and a GET cost (ARGS=--quick: in a minute)
	@$(BIN)/python bench/load.py $(ARGS)

bench-against: $(STAMP) ## what a PUT and a GET cost beside another commit, in one run (ARGS=COMMIT)
	@$(BIN)/python bench/against.py $(ARGS)

bench-changes: $(STAMP) ## nodes join, leave, are removed and replaced under load that checks every answer
	@$(BIN)/python bench/changes.py $(ARGS)

bench-failover: $(STAMP) ## what killed nodes cost clients
	@$(BIN)/python bench/failover.py $(ARGS)

bench-gossip: $(STAMP) ## how fast fifteen nodes learn of a death, a join, a leave; four minutes
	@$(BIN)/python bench/gossip_real.py $(ARGS)

bench-many: $(STAMP) ## what one more node costs a cluster of 10, 30, 100, in the simulator (ARGS="--members 300")
	@$(BIN)/python bench/many.py $(ARGS)

bench-repair: $(STAMP) ## a lost disk, diverged keys, flipped bytes, deletes, on three nodes; ten minutes
	@$(BIN)/python bench/repair.py $(ARGS)

bench-ring: $(STAMP) ## how even the ring is and how much a join moves
	@$(BIN)/python -m bench.ring

clean: ## remove the environment, caches and the demo's data
	rm -rf $(VENV) build *.egg-info data/n[123] data/n[123].log twisted/plugins/dropin.cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache _trial_temp
	find dynamo tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The environment is made anew when setup.py changed; the stamp comes last, so a broken
# installation is tried again. `editable_mode=compat` lets twistd find twisted/plugins.
$(STAMP): setup.py
	@set -e; \
	python=; \
	for candidate in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: Python 3.11 or newer is needed and none was found; install it," \
			"or say where it is: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	echo "Installing into $(VENV) with $$($$python --version); this takes a minute..."; \
	start=$$(date +%s); \
	"$$python" -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--config-settings editable_mode=compat --editable '.[dev]'; \
	touch $@; \
	echo "Installed in $$(( $$(date +%s) - start )) s."
