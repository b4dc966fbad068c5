# finetrace in one word each: `make help` lists the targets.
#
#   make repro                        run the study in params.yaml, or only what changed in it
#   make repro study=NAME             choose studies/NAME.yaml first
#   make repro jobs=N                 N processes at a time (by default: one per core for studies of micro-BERTs, else one)
#   make setup PYTHON=python3.13      another interpreter than python3
#   make setup TORCH_INDEX=URL        another build of torch, such as https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# One process per core; tests that share a file share a process. PYTEST_ARGS="-n 0 -x" goes back to one, for debugging.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PYTEST_ARGS ?=
HOST ?= 127.0.0.1
PORT ?= 5000

# Stage commands in dvc.yaml say plain `python`: it has to be ours. Nothing reports home.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export TOKENIZERS_PARALLELISM := false
# tests start hundreds of processes: each would compile what it imports anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup repro publish ui test test-all test-browser browser-tools test-gpu lint docs bench drills lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## make .venv from requirements.lock; does nothing when it is up to date

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "finetrace needs Python 3.11 or newer, and $(PYTHON) is not. Install one (Debian: apt-get install python3 python3-venv)," >&2; \
	  echo "or name another: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 1; }
ifneq ($(TORCH_INDEX),)
	$(BIN)/pip install -q --no-deps --index-url $(TORCH_INDEX) "$$(grep '^torch==' requirements.lock)"
endif
	$(BIN)/pip install -q -r requirements.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

repro: setup  ## run the study (study=NAME: choose studies/NAME.yaml first)
ifneq ($(study),)
	@$(BIN)/finetrace use studies/$(study).yaml
endif
	@$(BIN)/finetrace repro $(if $(jobs),--jobs $(jobs))

publish: setup  ## turn the outputs into MLflow runs; publishing twice changes nothing
	@$(BIN)/finetrace publish

ui: publish  ## publish, then compare runs at http://127.0.0.1:5000 (PORT=…)
	@$(BIN)/python -c 'import socket; socket.create_server(("$(HOST)", $(PORT))).close()' 2> /dev/null || { \
	  echo "Port $(PORT) of $(HOST) cannot be had: another program uses it. Take another one: make ui PORT=5001" >&2; exit 1; }
	@$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host $(HOST) --port $(PORT)

test: setup  ## the default tests: no network, no GPU, nothing slow
	$(PYTEST) $(PYTEST_ARGS)

test-all: setup browser-tools  ## the default tests, the slow ones, and those in a browser
	$(PYTEST) -m 'not gpu' $(PYTEST_ARGS)

test-browser: setup browser-tools  ## the page of the atlas in Chromium (CHROMIUM=/path/to/chrome names one)
	$(PYTEST) -m browser tests/browser $(PYTEST_ARGS)

browser-tools: setup
	@$(BIN)/python -c 'import playwright, axe_playwright_python' 2> /dev/null || \
	  $(BIN)/pip install -q --no-build-isolation -e '.[browser]'

test-gpu: setup  ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu $(PYTEST_ARGS)

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site needs nothing of finetrace but its text: the API is read from the source, not imported.
docs: $(VENV)-docs/.stamp  ## the documents and the Python API as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build -q

$(VENV)-docs/.stamp: pyproject.toml
	@test -x $(VENV)-docs/bin/pip || $(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/pip install -q $$($(PYTHON) -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

bench: setup  ## every benchmark in its short form, and which bars were missed (full=1: as long as it takes; only="geometry hulls")
	@$(BIN)/python benchmarks/_all.py $(if $(full),--full) $(only)

drills: setup  ## faults made on purpose around a toy study, an hour (only=hub: one script of drills/); see docs/drills.md
	@$(BIN)/python -c 'import hypothesis' 2> /dev/null || $(BIN)/pip install -q --no-build-isolation -e '.[drills]'
	@$(BIN)/python -m drills.book $(only)

# A fresh environment, so that the lock holds what pyproject.toml asks for and nothing else. hold="torch==2.13.0" keeps a version.
lock:  ## renew requirements.lock (hold="name==version …" keeps versions)
	@set -e; new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	$(PYTHON) -m venv $$new/env; \
	$$new/env/bin/python -c 'import tomllib; \
	project = tomllib.load(open("pyproject.toml", "rb")); \
	print(*project["project"]["dependencies"], *project["dependency-groups"]["dev"], "setuptools", sep="\n")' > $$new/wanted; \
	$$new/env/bin/pip install -q -r $$new/wanted $(foreach pin,$(hold),'$(pin)'); \
	grep '^#' requirements.lock > $$new/lock; \
	$$new/env/bin/pip freeze --all | sed -E 's/\+[A-Za-z0-9.]+$$//' \
	  | grep -viE '^(pip|wheel|triton|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==' | sort -f >> $$new/lock; \
	cp $$new/lock requirements.lock; grep -vc '^#' requirements.lock

clean:  ## remove caches and reports; outputs, data and the MLflow store stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache build dvc_plots src/*.egg-info
	find src tests pipelines benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
