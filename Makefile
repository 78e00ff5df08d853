# Two commands on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# Versions other than the newest, such as REQUIRE="jax==0.7.2 jaxlib==0.7.2".
REQUIRE ?=
BIN = $(VENV)/bin
ALL = .venv-all
DOCS = .venv-docs
# Python compiles what is imported; pip would compile all that is installed, which takes
# four fifths of its time.
PIP_INSTALL = -m pip install --quiet --no-compile
# One file of tests is one worker's, so that what its tests share is made once. The files
# come in the order of their names: in that of their numbers of tests, the few long ones
# would be the last.
PYTEST = python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: train test test-all notebooks mutants docs lint clean

train: $(VENV)/.installed
	$(BIN)/python -m experiments.train $(PRESET) $(ARGS)

# What a change can break.
test: $(VENV)/.installed-dev lint
	$(BIN)/$(PYTEST) -m "not slow and not notebooks" $(PYTEST_ARGS)

# Everything: slow tests, the libraries to compare with, compilers for TPUs and GPUs,
# and the notebooks.
test-all: $(ALL)/.installed-all lint
	$(ALL)/bin/$(PYTEST) -m "not notebooks" $(PYTEST_ARGS)
	bash tests/notebooks.sh

notebooks:
	bash tests/notebooks.sh

# Whether the tests notice a fault; ONLY=name tries one.
mutants: $(VENV)/.installed-dev
	$(BIN)/python tests/run_mutants.py $(ONLY)

# Pages and API reference as a site, in site/; a warning is an error.
docs: $(DOCS)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# Only what is missing or older than the floors is installed: a jax that is there stays.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) $(REQUIRE) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) $(REQUIRE) -e ".[dev]"
	touch $@ $(VENV)/.installed

# The compilers for TPUs and GPUs lie apart, where experiments.benchmark looks for them:
# a jax that finds one looks for its device at every start.
$(ALL)/.installed-all: pyproject.toml
	test -x $(ALL)/bin/python || $(PYTHON) -m venv $(ALL)
	$(ALL)/bin/python $(PIP_INSTALL) $(REQUIRE) -e ".[dev,compare]"
	$(ALL)/bin/python $(PIP_INSTALL) --no-deps --upgrade --target $(ALL)/libtpu libtpu
	$(ALL)/bin/python $(PIP_INSTALL) --no-deps --upgrade --target $(ALL)/cuda-pjrt \
	  jax-cuda12-pjrt==$$($(ALL)/bin/python -c 'import jaxlib; print(jaxlib.__version__)')
	touch $@

# What the extra `docs` names, without the library: docstrings are read, not imported.
$(DOCS)/.installed-docs: pyproject.toml
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))\
	  ["project"]["optional-dependencies"]["docs"], sep="\n")' > $(DOCS)/requirements.txt
	$(DOCS)/bin/python $(PIP_INSTALL) -r $(DOCS)/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-* .cache build site *.egg-info
