# One make target per verb. Everything is set up inside .venv; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
TESTS ?= tests
PARALLEL ?= -n logical --maxprocesses 4 --dist worksteal

INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
# Without a GPU PyTorch's CPU build, a tenth of the other's size, if PyTorch's own registry can be reached and has it.
CPU = $$(test -e /dev/nvidiactl -o -e /dev/kfd || ! UV_HTTP_TIMEOUT=5 UV_HTTP_RETRIES=0 $(INSTALL) --dry-run \
	--reinstall --torch-backend cpu torch torchvision >/dev/null 2>&1 || echo --torch-backend cpu)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all contract check browser format docs site release constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null \
		|| grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST)

install: .venv/installed ## make .venv with everything pinned in constraints.txt

.venv/installed: pyproject.toml constraints.txt setup.py $(wildcard facerwkv/kernels/native/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(INSTALL) --compile-bytecode $(CPU) --editable '.[dev]'
	@touch $@

demo: install ## train on drawn faces, evaluate, name the expression in an image (under 4 minutes on 2 cores)
	$(BIN)/facerwkv demo

check: install ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install ## lint, types and the tests (what CI runs): about five minutes on two cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; status=0; \
	$(BIN)/pytest $(TESTS) -m "not slow" $(PARALLEL) || status=$$?; \
	wait $$types && exit $$status

test-all: check contract ## the tests with the slow ones: about two hours on two cores
	@echo "The slow tests take about two hours on two cores; the longest train a system until it knows the toy faces."
	@status=0; \
	$(BIN)/pytest $(TESTS) -m "not alone" $(PARALLEL) || status=$$?; \
	echo "Now those that measure time or memory, one by one."; \
	$(BIN)/pytest $(TESTS) -m alone || test $$? = 5 || status=1; \
	exit $$status

browser: tests/export/node_modules ## what the browser tests need: onnxruntime-web (CI=true, as root: Chromium and npm too)

tests/export/node_modules: tests/export/package-lock.json
	@if [ "$(CI)" = true ] && [ "$$(id -u)" = 0 ]; then \
		missing=$$(for program in chromium npm; do command -v $$program >/dev/null || echo $$program; done); \
		test -z "$$missing" || { apt-get -qq update && apt-get -qq install --yes --no-install-recommends $$missing; }; \
	fi
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund
	@touch $@

contract: install # what the test of the OpenAPI document needs
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[contract]'

format: install ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## write the numbers in README.md and docs/ from the kept runs and measurements
	$(BIN)/python tools/write_docs.py
	$(BIN)/python tools/write_lists.py
	$(BIN)/python tools/write_speed.py

release: check ## build wheel and sdist in dist/, check them, install them into empty environments, run the quick start
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/uv tool run twine check --strict dist/*
	$(BIN)/pytest tests/test_release.py tests/test_wheel.py
	@ls -l dist

site: install ## build the documentation for a browser in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

constraints: install ## pin the newest versions that fit pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --all-extras --no-header --no-annotate \
		--no-emit-index-url pyproject.toml --output-file constraints.txt

clean: ## remove .venv and what the tests and the demo wrote
	rm -rf .venv runs build dist tests/export/node_modules *.egg-info .pytest_cache .mypy_cache .ruff_cache
