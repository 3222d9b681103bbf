# The verbs of this repository. `make serve` and `make chat` need nothing but Python 3.11 and make; `make test` also
# runs the SDKs of Node and a browser where node, npm and chromium are there, and says where they are not.

PYTHON ?= python3
VENV ?= .venv
# Where pip finds another build of PyTorch, for example its CPU build; empty for the default.
TORCH_INDEX ?=
BIN := $(VENV)/bin

NODE := tests/server/node

.PHONY: setup serve chat check test evaluate bench clean

setup: $(VENV)/ready-dev $(NODE)/ready

serve: $(VENV)/ready
	@$(BIN)/magister serve || [ $$? -eq 130 ]

chat: $(VENV)/ready
	@$(BIN)/magister chat || [ $$? -eq 130 ]

check: $(VENV)/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

# On two cores: each of two processes takes what stands next to each other, and from the other's end when it is done.
test: check $(NODE)/ready
	$(BIN)/pytest -n 2 --dist worksteal

evaluate: $(VENV)/ready-dev
	$(BIN)/magister evaluate nano --n 500 --out docs/nano.md

# Side by side with llama.cpp, vLLM and transformers, which it installs under .bench/.
bench: $(VENV)/ready-dev
	$(BIN)/python -m bench

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	if [ -n "$(TORCH_INDEX)" ]; then $(BIN)/pip install --quiet 'torch>=2.11,<2.14' --index-url $(TORCH_INDEX); fi
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/pip install --quiet --editable '.[test,check,train]'
	@touch $@

$(NODE)/ready: $(NODE)/package.json
	if command -v npm > /dev/null; then npm install --prefix $(NODE) --no-audit --no-fund --no-package-lock --silent; \
	else echo "npm is not here: the tests of Node's SDKs will be skipped"; fi
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
