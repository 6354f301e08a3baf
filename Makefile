# `make demo` and `make test` need make, git and Python 3.11 or newer; they set up the rest in .venv.
PYTHON ?= python3

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PIP := $(PY) -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow chaos soak lint clean

help:
	@echo "make demo       score real data on a local cluster while its workers fail and one returns wrong numbers, and report"
	@echo "make test       run the tests, except the slow ones"
	@echo "make test-slow  run the slow tests; DATA=DIR: with real data too (mnist.npz); TESTS=tests/hpc: only these"
	@echo "make chaos      RUNS=200 SEED=1: so many runs under random faults, from that seed on"
	@echo "make soak       MINUTES=30 SEED=1: such runs for half an hour, and the memory they leave"
	@echo "make lint       check style and types"
	@echo "make clean      remove what these made"
	@echo "PYTHON=...      another Python than python3 (3.11 or newer)"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" > /dev/null || { echo "there is no $(PYTHON) here; approxifer needs Python 3.11 or newer: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(sys.version_info < (3, 11) and "approxifer needs Python 3.11 or newer; $(PYTHON) is " + v + ". Name another one: make PYTHON=python3.12 ...")'
	@echo "== setting up .venv with the versions in constraints.txt (minutes, the first time)"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@$(PIP) install --quiet 'pip==26.3'
	@$(PIP) install --quiet --constraint constraints.txt --group test --group lint --editable .
	@touch $@

demo: $(READY)
	@echo "== approxifer demo: data and results go to demo/"
	@$(VENV)/bin/approxifer demo --dir demo

test: $(READY)
	@echo "== the tests, except those marked slow (make test-slow)"
	@$(PY) -m pytest -m "not slow"

test-slow: $(READY)
	@echo "== the slow tests"
	@$(PY) -m pytest -m slow $(if $(DATA),"--data=$(DATA)") $(TESTS)

RUNS ?= 200

chaos: $(READY)
	@PYTHONPATH=tests $(PY) -m chaos --runs=$(RUNS) $(if $(SEED),--seed=$(SEED))

MINUTES ?= 30

soak: $(READY)
	@PYTHONPATH=tests $(PY) -m chaos --minutes=$(MINUTES) $(if $(SEED),--seed=$(SEED))

# mypy follows the mapping of folders to approxifer.* only in a plain install.
lint: $(READY)
	@echo "== ruff"
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@echo "== mypy"
	@rm -rf build
	@$(PIP) install --quiet --constraint constraints.txt 'setuptools>=77'
	@$(PIP) install --quiet --no-deps --no-build-isolation --target build/typing .
	@cd build/typing && ../../$(PY) -m mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p approxifer
	@rm -rf build

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
