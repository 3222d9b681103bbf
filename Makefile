# The verbs of this repository. `make chat` and `make test` need nothing but Python 3.11 and make.

PYTHON ?= python3
VENV ?= .venv
# Where pip finds another build of PyTorch, for example its CPU build; empty for the default.
TORCH_INDEX ?=
BIN := $(VENV)/bin

.PHONY: setup chat check test evaluate bench clean

setup: $(VENV)/ready-dev

chat: $(VENV)/ready
	@$(BIN)/magister chat || [ $$? -eq 130 ]

check: $(VENV)/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

test: check
	$(BIN)/pytest

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

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
