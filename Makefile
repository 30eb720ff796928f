# `make` alone explains itself. Needs Python 3.11+ with its venv module and make, nothing else.

VENV := .venv
BIN := $(VENV)/bin
UV ?= $(firstword $(wildcard $(BIN)/uv) uv)
PYTEST_ARGS ?=

# True for a Python that can make the environment.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

# `python3` where it is new enough, else the newest that is. Set PYTHON to choose another one.
PYTHON ?= $(shell for p in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(USABLE)' >/dev/null 2>&1 && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test test-federation test-hosts test-nextcloud peers check format bench bench-quick wheel lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed  ## The whole promise on real files, then every attack on it
	@$(BIN)/nextcloud-audit demo

test: $(VENV)/.installed  ## All tests; PYTEST_ARGS="-k map" for some of them
	@$(BIN)/python -m pytest -n 2 --dist loadfile --durations=10 $(PYTEST_ARGS)

test-federation: $(VENV)/.installed  ## Thousands of schedules of a federation under attack, on all cores, in minutes
	@$(BIN)/python -m pytest -m federation -q -n auto --dist worksteal tests/property/test_federation_long.py $(PYTEST_ARGS)

peers: $(VENV)/.installed  ## Install witnesses that others wrote, for tests/peers (wants a Python 3.12; in CI it fails without)
	@$(BIN)/python -m tests.peers.install

test-nextcloud: $(VENV)/.installed  ## Life cycles on a real Nextcloud (NEXTCLOUD_URL and more: see tests/nextcloud/conftest.py)
	@test -n "$$NEXTCLOUD_URL" || { echo "NEXTCLOUD_URL is not set: tests/nextcloud/conftest.py says what to set" >&2; exit 1; }
	@$(BIN)/python -m pytest -q -p no:xdist -m "not hosts" tests/nextcloud/test_contract.py tests/nextcloud/test_life*.py $(PYTEST_ARGS)

test-hosts: $(VENV)/.installed  ## Five hosts in network namespaces, and faults (root; apt-get install iproute2 nftables faketime)
	@$(BIN)/python -m pytest -m hosts -q -s tests/hosts $(PYTEST_ARGS)

check: $(VENV)/.installed  ## Format, lint, strict types and the import arrow
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict verifier audit bench
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(VENV)/.installed  ## Format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed  ## Measure everything
	@$(BIN)/python -m bench

bench-quick: $(VENV)/.installed  ## Nearly the same rows on less data
	@$(BIN)/python -m bench --quick

wheel: $(VENV)/.installed  ## Build dist/nextcloud_audit-*.whl
	@rm -rf dist
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

clean:  ## Remove caches and dist (the environment: rm -rf .venv)
	rm -rf dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Both stamps live inside the environment and `--clear` empties it first, so what fails half-way counts as absent.
$(VENV)/.locked: requirements/dev.txt
	@test -n "$(PYTHON)" || { \
		echo "nextcloud-audit needs Python 3.11 or newer with its venv module, and found none:" >&2; \
		echo "  python3 is $$(python3 -V 2>&1 || true)" >&2; \
		echo "  install one (Debian: python3-venv), or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(USABLE)' || { \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1 || true), want Python 3.11 or newer with its venv module" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) -V) from requirements/dev.txt (takes about a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $@

# One resolution for Python 3.11 and newer on every platform. The smaller locks hold the same versions as the big one.
COMPILE = $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:  ## Renew requirements/*.txt to the newest allowed versions (needs uv)
	@$(UV) --version >/dev/null 2>&1 || { echo "make lock needs uv: $(BIN)/pip install uv" >&2; exit 1; }
	$(COMPILE) --upgrade --extra server --group dev --output-file requirements/dev.txt
	$(COMPILE) --upgrade --constraint requirements/dev.txt --extra server --output-file requirements/server.txt
	$(COMPILE) --upgrade --constraint requirements/dev.txt --output-file requirements/base.txt
	$(UV) pip compile requirements/peers.in --quiet --universal --python-version 3.12 --generate-hashes --upgrade \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file requirements/peers.txt
