# mobikectl: two commands do everything on a fresh Debian 12 machine (root):
#   make lab     runs the main job on real charons and shows the result
#   make test    runs every check
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= /usr/bin/python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= out
JOBS   ?= $(shell nproc)
# So often runs a scenario that missed a limit or its end, nothing worse: a busy machine does that now and then, a fault each time.
TRIES  ?= 5

APT_PACKAGES := $(shell sed 's/\#.*//' packaging/apt-packages.txt)

.PHONY: help setup need-root venv system browser promtool lint types unit charon lab lab-kernel compose-lab test-compose test deb test-deb bench chaos docs pictures clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

system: ## install the Debian packages that the lab needs
	@packaging/install-system $(APT_PACKAGES)

venv: $(VENV)/.ready ## the virtual environment, from the exact versions in requirements.lock

$(VENV)/.ready: requirements.lock pyproject.toml | system
	@echo "== virtual environment"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

need-root:
	@((EUID == 0)) || { echo "mobikectl: run this as root: it makes network namespaces and starts charons" >&2; exit 1; }

setup: need-root system venv

promtool: system ## what checks the alert rules and the dashboard's queries
	@packaging/get-promtool build/tools/promtool

browser: need-root ## Chromium, in which the web page is tested
	@packaging/install-system chromium

lint: venv ## ruff: format and rules
	@echo "== ruff"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: venv ## mypy --strict
	@echo "== mypy"
	$(BIN)/mypy
	# The steps of the scenarios all have one name, in folders that are no packages: each is looked at under its scenario's.
	rm -rf build/steps
	mkdir -p build/steps
	for steps in mobikectl/lab/scenarios/*/steps.py; do
	  scenario=$$(basename $${steps%/steps.py})
	  ln -s ../../$$steps build/steps/$${scenario//-/_}.py
	done
	$(BIN)/mypy build/steps

unit: setup browser promtool ## unit, contract, vector, property and fuzz tests
	@echo "== tests"
	$(BIN)/python -m pytest -n 3 --dist loadgroup -m "not charon" --reruns 1 $(PYTEST_ARGS) tests

# Real daemons on a shared machine: what fails once and passes when it has the machine to itself was starved.
# The closing lines name what was run again.
charon: setup plugin plugin-asan ## tests that start real charons
	@echo "== tests with real charons"
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m charon --reruns 2 --durations 10 $(PYTEST_ARGS) tests

lab: setup plugin ## the main job on real charons: every scenario, a table, a picture
	@echo "== lab"
	status=0
	$(BIN)/mobikectl lab run --all --tries $(TRIES) --jobs $(JOBS) --out $(OUT)/lab || status=$$?
	$(BIN)/mobikectl timeline $(OUT)/lab --out $(OUT)/lab/timeline.svg
	exit $$status

lab-kernel: setup plugin ## the same scenarios on a real kernel ESP path (user-mode-linux)
	@echo "== lab on kernel ESP"
	$(BIN)/mobikectl lab run --all --esp kernel --tries $(TRIES) --jobs $(JOBS) --out $(OUT)/lab-kernel

test: need-root lint types unit charon lab lab-kernel test-compose ## everything that CI runs
	@echo "== all passed"

compose-lab: ## the cluster in containers: drain a gateway, kill one, see it, tear down (needs Docker)
	@packaging/compose/story $(OUT)/compose

# Where no Docker engine answers, or has no image to begin with, there is nothing to test, and that is said.
test-compose: ## the same as a test: passes where there is no Docker engine, and says so
	@echo "== containers"
	for try in 1 2; do
	  status=0
	  packaging/compose/story $(OUT)/compose || status=$$?
	  ((status == 1)) || break
	done
	((status != 3)) || { echo "mobikectl: the containers are not tested here"; exit 0; }
	exit $$status

deb: venv ## build the Debian packages into build/deb (lintian looks at them)
	@packaging/build-deb

test-deb: deb ## install them into a fresh Debian root, start the service under systemd, purge them (minutes; not part of test)
	@packaging/test-deb build/deb

bench: setup ## measure, and write the results to $(OUT)/bench
	mkdir -p $(OUT)/bench
	for name in netlink charon routes balance sidecar store; do
	  echo "== bench $$name"
	  $(BIN)/python benchmarks/$$name.py --json $(OUT)/bench/$$name.json
	done

# Half an hour on two processors. What failed is to be had again with the SEED that it tells.
chaos: setup plugin ## MOVES (300) moves of IKE_SAs while processes are killed as a SEED says, then a kill at each step
	@echo "== chaos"
	$(BIN)/mobikectl lab chaos --moves $(or $(MOVES),300) $(if $(SEED),--seed $(SEED)) --esp $(or $(ESP),auto) --out $(OUT)/chaos
	$(BIN)/mobikectl lab chaos --every-step --esp $(or $(ESP),auto) --out $(OUT)/chaos-steps

pictures: setup plugin browser ## take the pictures of docs/pictures anew, from labs of real charons
	$(BIN)/python -m docs.pictures

docs: venv ## the reference in docs/reference; manual pages and shell completion in $(OUT)
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/man.py $(OUT)

include packaging/plugin.mk

clean: ## remove what was built
	rm -rf $(VENV) $(OUT) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
