# Every verb does its own set-up: on a fresh machine with Python 3.11 and a package registry, any of them just works.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

# What make evaluate asks; it needs stored candles: recall fetch --symbols $(SYMBOLS) --interval 60
SYMBOLS ?= BTCUSDT,ETHUSDT,SOLUSDT,BNBUSDT
EVALUATION ?= build/evaluation.json

.PHONY: setup run test test-all check bench chaos evaluate clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Recall needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

run: setup
	$(BIN)/recall paper --venue sandbox

test: setup
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal

test-all: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks

chaos: setup
	$(BIN)/python -m benchmarks chaos_runs

evaluate: setup
	mkdir -p $(dir $(EVALUATION))
	$(BIN)/python -m benchmarks --evaluate
	$(BIN)/recall evaluate --symbols $(SYMBOLS) --interval 60 --train-end 2024-01-01 --end 2026-01-01 \
		--plots docs/images --json > $(EVALUATION)
	$(BIN)/python -m benchmarks --results $(EVALUATION)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
