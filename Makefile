# make demo: a composed picture; make test: the tests. Both set everything up on a machine with Python 3.11 or newer.
# PYTHON: the interpreter for .venv; PIP_FLAGS: more for pip (see CONTRIBUTING.md); ARGS: more for the command.

PYTHON ?= python3
PIP_FLAGS ?=
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.pops-installed
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format tiny clean

help:
	@echo "make setup   .venv with everything (the other targets do it themselves)"
	@echo "make demo    a tiger-striped teapot in out/demo.png"
	@echo "make test    the tests (ARGS='-k seeds' for some of them)"
	@echo "make lint    ruff and mypy; make format writes what ruff would"
	@echo "make tiny    trains the shipped model again, stage by stage"
	@echo "make clean   removes .venv, out/ and caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "pops needs Python 3.11 or newer, $(PYTHON) is older; run: make PYTHON=python3.12 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
		rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; install its venv package" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev,train,retrieval,controls,int8,heif,server]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/pops run "texturing(examples/objects/teapot.png, examples/textures/tiger.png)" -o out/demo.png --force $(ARGS)
	@echo "the picture is in $(CURDIR)/out/demo.png"

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tiny: $(STAMP)
	$(BIN)/python -m recipes.tiny $(ARGS)

clean:
	rm -rf .venv out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
