# Everything runs in .venv, which is made on first use. `make PYTHON=python3.12 test` picks another Python.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$p && break; done)
# Processes that run the tests.
WORKERS ?= 2
# Of the order of the tests; `make test SEED=1` repeats an order.
SEED ?= $(shell date +%s)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check format parity docs golden slow bench clean

# Embeds and labels sample images with the checkpoint inside the package; offline, in seconds.
demo: $(VENV)/.base
	$(BIN)/mlx-aimv2 demo --force

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n $(WORKERS) --randomly-seed=$(SEED)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

parity: $(VENV)/.parity
	$(BIN)/python -m pytest -q -m "parity and not slow" tests/parity

# The documentation site, into site/; a warning is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

slow: $(VENV)/.parity
	$(BIN)/python -m pytest -q -m slow

golden: $(VENV)/.test
	$(BIN)/python -m pytest -q -m network $(if $(ONLY),-k $(ONLY))

# Speed and memory against PyTorch and the limits of this machine, into benchmarks/RESULTS.md, in about 20 minutes.
# `make bench ONLY=forward`; PEER_PYTHON names the Python of an environment with PyTorch, torchvision and timm.
bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py $(if $(ONLY),--only '$(ONLY)') $(if $(PEER_PYTHON),--peer-python $(PEER_PYTHON))

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .grimp_cache .import_linter_cache .hypothesis demo-output

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 to 3.14 is needed; install one, or: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(BIN)/python pyproject.toml
	$(PIP) -e '.[cpu]'
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) -e '.[cpu,test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e '.[cpu,dev]'
	@touch $@

$(VENV)/.parity: $(VENV)/.test
	$(PIP) -e '.[cpu,test,parity]'
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) -e '.[cpu,test,bench]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) -e '.[cpu,docs]'
	@touch $@
