# `make demo` and `make test` set up all they need from Python 3.11+ alone.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-kill bench bench-start bench-growth bench-scale lint install clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: install  ## generate the sample videos, extract, train, sweep, print the results
	DYNAPROP_HOME=demo $(BIN)/dynaprop run sample

test: install
	$(BIN)/python -m pytest -q

test-slow: install
	$(BIN)/python -m pytest -q -m slow

test-kill: install  ## kill extractions at random moments, and commands that share a run at every step; prints figures
	$(BIN)/python -m pytest -q -s -m kill

bench: install  ## measure extraction, cache, training, orchestration and decoding as ratios; `make bench QUICK=1` in some 3 minutes
	$(BIN)/python -m bench.speed $(if $(QUICK),--quick)
	$(BIN)/python -m bench.decode_speed $(if $(QUICK),--quick)

bench-start: install  ## how long commands take to start, as ratios to `import torch`
	$(BIN)/python -m bench.start

bench-growth: install  ## cost of planning, resuming, verifying and listing with up to a million videos
	$(BIN)/python -m bench.growth

bench-scale: install  ## 10,000 shard tasks through Prefect and Dask, and what large datasets take; `QUICK=1` prints 200 tasks
	$(BIN)/python -m bench.scale $(if $(QUICK),--quick)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf .venv demo
