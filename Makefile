# Everything a newcomer needs: `make demo` and `make test` set themselves up in .venv.
PYTHON ?= python3
BIN := .venv/bin
ROUNDS ?= 30

.PHONY: help demo test test-slow test-infra gpu chaos lint constraints clean

help:
	@echo "make demo       the main job on a real sample: index, retrieve, rerank, compare"
	@echo "make test       linters, types, import rules and the tests"
	@echo "make test-slow  the slow tests: kills, faults, memory and scale"
	@echo "make test-infra  manifests, policies and container files against their schemas"
	@echo "make gpu        every check and measurement that needs a GPU, in one go"
	@echo "make chaos      drivers, workers and an S3 server killed at random, ROUNDS=30 times each"
	@echo "make clean      remove .venv, the sample, its index and its runs"

# torch first and by itself: where there is no GPU its CPU build saves gigabytes.
.venv/installed: pyproject.toml infra/constraints.txt infra/install_torch.sh
	$(PYTHON) -m venv .venv
	sh infra/install_torch.sh $(BIN)/python infra/constraints.txt
	$(BIN)/python -m pip install --quiet -c infra/constraints.txt -e ".[sample,train,dev]"
	touch $@

demo: .venv/installed
	$(BIN)/rerank-batch sample .sample
	$(BIN)/rerank-batch build-index configs/quickstart.yaml
	$(BIN)/rerank-batch rerank configs/quickstart.yaml
	$(BIN)/rerank-batch evaluate configs/quickstart.yaml --run latest
	$(BIN)/rerank-batch evaluate configs/compare.yaml

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow -s --timeout 1800

test-infra: .venv/installed
	$(BIN)/python -m pip install --quiet -c infra/constraints.txt -e ".[sample,cluster,dev,infra]"
	$(BIN)/python -m pytest -m infra --timeout 1800 tests/infra

gpu: .venv/installed
	$(BIN)/python -m pytest -m gpu tests/scoring/test_gpu.py
	$(BIN)/rerank-batch benchmark scoring --size minilm-l6 --size base --size large \
		--mix passages --pairs 20000 --allow bf16 --rounds 5

chaos: .venv/installed
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS)

constraints: .venv/installed
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > infra/constraints.txt

clean:
	rm -rf .venv .sample .sample-all .index .runs .labels .folds
