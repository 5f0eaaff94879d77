# `make demo` and `make test` set up all they need in .venv; a second run starts at once.
# Without a GPU: make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
TORCH ?= $(shell grep '^torch==' constraints.txt)
PYTHON ?= $(shell for each in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
# two test processes, one thread each
TEST_PROCESSES ?= 2
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.DELETE_ON_ERROR:
.PHONY: help demo test test-models docs lint clean

help:
	@echo "make demo   the main job on the shipped model: profile, allocate, generate, one table"
	@echo "make test   all tests, with ruff and mypy among them"
	@echo "make test-models  every model class of transformers, against docs/models.md"
	@echo "make docs   the pages of docs/ as a site in build/site"
	@echo "make lint   ruff and mypy alone"
	@echo "make clean  remove the virtual environment and everything made by a build"

demo: $(VENV)/installed
	$(RUN) -m kvbudget demo $(ARGS)

test: $(VENV)/installed-test
	$(TEST_ENVIRONMENT) $(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

test-models: $(VENV)/installed-test
	$(TEST_ENVIRONMENT) $(RUN) -m pytest tests/models/sweep.py -n $(TEST_PROCESSES) $(ARGS)

docs: $(VENV)/installed-test
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict $(ARGS)
	@echo "Open build/site/index.html"

lint: $(VENV)/installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) tests/packaging/link_types.py
	MYPYPATH=.types $(RUN) -m mypy -p kvbudget

clean:
	rm -rf $(VENV) .types build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find allocator heuristics runtime kernels src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# some systems ship Python without ensurepip; their own pip then fills the environment
$(RUN):
	@test -n "$(PYTHON)" || { echo "kvbudget needs Python 3.11 or newer, and none was found." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { $(PYTHON) -m venv --without-pip --clear $(VENV) \
		&& $(PYTHON) -m pip --python $(RUN) install --quiet pip; }

# torch comes first, so that nothing pulls a newer one; a wheel of torch that pins its own triton
# (those for CUDA do) keeps it
$(VENV)/constraints.txt: $(RUN) constraints.txt
	$(PIP) install --quiet "pip>=23.1"
	$(PIP) install $(TORCH)
	@if $(RUN) -c 'import importlib.metadata as m; print(m.requires("torch"))' | grep -q triton; \
		then sed '/^triton==/d' constraints.txt; else cat constraints.txt; fi > $@

$(VENV)/installed: $(VENV)/constraints.txt pyproject.toml
	$(PIP) install --constraint $< --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/constraints.txt pyproject.toml
	$(PIP) install --constraint $< --editable ".[test]"
	@touch $@ $(VENV)/installed
