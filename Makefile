# Every command of the project. `.ci/run` calls these and nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install demo test test-newer check fix conformance matrix crash soak bench screenshots lock clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(STAMP) ## build .venv with the pinned dependencies and the package

$(STAMP): requirements.lock pyproject.toml
	@scripts/install "$(PYTHON)"
	@touch $@

demo: install ## watch model output stream through Penstock into a browser
	@$(BIN)/penstock demo

test: install ## run every test whose services are installed, and say what was skipped
	@$(BIN)/python -m pytest -q -ra $(ARGS)

test-newer: ## run the fast path's tests on a newer Python, where one is installed
	@scripts/newer-python

check: install ## formatting, lint, types, import contracts
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright && $(BIN)/lint-imports

fix: install ## format, and repair what can be repaired
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

conformance: install ## run the published Durable Streams suite against penstock serve, on every backend
	@$(BIN)/python -m pytest -q -ra -s tests/conformance $(ARGS)

matrix: install ## every model dialect in, every dialect out, read by every SDK
	@PYTHONPATH=tests $(BIN)/python -m interop.llm_sdks.matrix $(ARGS)

crash: install ## a hundred rounds of kill -9 under load: nothing acknowledged lost, nothing shown taken back
	@PYTHONPATH=tests $(BIN)/python -m crash.crash $(ARGS)

soak: install ## two minutes of cut connections and slow readers; nothing lost, nothing left behind
	@$(BIN)/python tests/soak/soak.py $(ARGS)

bench: install ## measure against C, nchan, Node, Go, sse-starlette, LiteLLM and the Durable Streams reference server
	@$(BIN)/python -m bench $(ARGS)

screenshots: install ## take the pictures of docs/images from the running demo
	@PYTHONPATH=tests $(BIN)/python -m browser.screenshots

lock: install ## pin every dependency with its hashes, naming no index
	@$(BIN)/uv pip compile --universal --python-version 3.11 --group dev pyproject.toml \
		--generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock

clean: ## remove what the commands above made
	rm -rf .venv build dist bench/build .ruff_cache .hypothesis .import_linter_cache
	rm -rf tests/conformance/node_modules tests/interop/*/node_modules
