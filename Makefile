# Medical Record. `make run` and `make test` install everything they need themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := 0.13.9

.DEFAULT_GOAL := help
.PHONY: help install system run test test-site lint types unit computed cell site bench train lock clean

help:            ## this list
	@grep -E '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# Compiled once: a cell starts some twenty Python processes, and where nobody may write byte code each of
# them would compile Ray and FastAPI again, which takes longer than all else that they do.
install:         ## a virtual environment with the pinned packages
	@$(MAKE) --no-print-directory -j2 $(VENV)/.installed system
	@$(BIN)/python -m compileall -q serve_app deployments models configs benchmarks tests

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo 'Python 3.11 to 3.13 is needed; name one with: make PYTHON=python3.11 …'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# What no wheel carries. HAProxy is a wheel on Linux; a site's own programs are for its hosts and tests.
APT  := etcd-server etcd-client keepalived nftables faketime prometheus iproute2 iputils-ping
BREW := haproxy etcd prometheus
system:          ## system programs that no wheel carries
	@if [ "$$(uname)" = Darwin ]; then \
	  for name in $(BREW); do brew list $$name >/dev/null 2>&1 || brew install $$name; done; \
	elif command -v apt-get >/dev/null && ! dpkg -s $(APT) >/dev/null 2>&1; then \
	  if [ "$$(id -u)" != 0 ]; then \
	    echo 'missing system programs; as root: apt-get install --no-install-recommends $(APT)'; exit 0; fi; \
	  own=; p=/usr/sbin/policy-rc.d; \
	  [ -e $$p ] || { own=1; printf '#!/bin/sh\nexit 101\n' >$$p; chmod +x $$p; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    $(APT) >/dev/null; status=$$?; [ -z "$$own" ] || rm -f $$p; exit $$status; \
	fi

run: install     ## the whole platform on this machine, with demo models; Ctrl-C stops it
	$(BIN)/medrec up

# A cell's tests wait for a quarter of their time: beside them, and only when no core is wanted for them,
# goes what computes without looking at a clock.
test: install lint  ## lint, types and every test
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory -j3 cell types computed
	@$(MAKE) --no-print-directory site

lint:
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

types:
	nice -n 19 $(BIN)/mypy --no-error-summary

COMPUTED = tests/models/demo $(filter-out %/test_language.py,$(wildcard tests/models/test_*.py)) \
  $(addprefix tests/,benchmarks/test_engine.py configs/test_prometheus.py \
  deployments/data/demo/test_charts.py deployments/data/records/test_validation.py)
# Many tests wait more than they compute: four workers for two cores. What needs a whole cell runs by
# itself, one test at a time; a whole site without the cell that the other tests share beside it. Of these
# only the files are read that have such tests: to collect all of them takes a core's quarter of a minute.
CELL_TESTS = $(sort $(shell grep -rl --include='*.py' 'mark\.cluster' tests))
unit:
	$(BIN)/python -m pytest -q -m "not cluster and not slow" -n 4 --dist loadfile --no-loadscope-reorder --durations=10 \
	  $(addprefix --ignore=,$(COMPUTED))
computed:
	nice -n 19 $(BIN)/python -m pytest -q -m "not slow" --durations=3 $(COMPUTED)
cell:
	$(BIN)/python -m pytest -q -m "cluster and not site and not slow" --durations=10 $(CELL_TESTS)
site:
	$(BIN)/python -m pytest -m "site and not slow" --durations=10 tests/site

test-site: install  ## every fault of a whole site, and what else is too slow for `make test`; as root on Linux, about an hour
	$(BIN)/python -m pytest -m "hypothesis and not slow and not cluster" --hypothesis-profile=default
	$(BIN)/python -m pytest -m "slow and not site" --durations=0
	$(BIN)/python -m pytest -m site --durations=0 tests/site

bench: install   ## short benchmarks; the platform must be running for `chat`
	$(BIN)/python -m benchmarks capacity
	$(BIN)/python -m benchmarks engine
	$(BIN)/python -m benchmarks chat --clients 1,32

train: install   ## train the demo language model anew (an hour of CPU; needs PyTorch)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-train.txt
	$(BIN)/python -m models.demo.language

lock:            ## pin the packages anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --quiet -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra train --universal --python-version 3.11 \
	  --generate-hashes --no-header --quiet -c requirements.txt -o requirements-train.txt

clean:           ## remove the environment and everything that runs left behind
	rm -rf $(VENV) .medrec .mypy_cache .ruff_cache .pytest_cache .hypothesis
