# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
NEXT_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python) python3.13)
NEXT_VENV = .venv-next
NEXT_DENSITIES = glow vector-glow nsf,-floats maf,-labels ffjord pixelcnn vae vdm text-vdm tabular ensemble-of-glows
NEXT_TESTS = $(foreach name,$(NEXT_DENSITIES),"tests/test_densities.py::test_contract[$(name)]")
SLOW ?=
WORKERS ?= 2
# Neighbors in a file share compiled programs: each worker takes a stretch of the suite, and steals at the end.
# Python's type checkers take an int where a float is expected (PEP 484); so does the tests' checker.
CHECKER = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
PYTEST = -m pytest -n $(WORKERS) --dist worksteal --durations=30

.PHONY: demo test lint docs docs-full notebooks next clean

demo: $(INSTALLED)
	$(BIN)/likejax demo --out demo

# Everything not marked slow, under the type checker of shapes; then what runs as in a user's process, without it. SLOW=1 adds the
# slow tests to the latter, whose checks would take a fifth of their time; and lint and types, the documentation, and the newest
# JAX where there is a Python for it.
test: $(INSTALLED)
	$(BIN)/python $(PYTEST) "--jaxtyping-packages=likejax,$(CHECKER)" -m "not untyped and not slow"
	$(BIN)/python $(PYTEST) $(if $(SLOW),-m "untyped or slow" --slow,-m "untyped and not slow")
	$(if $(SLOW),$(MAKE) --jobs 2 --output-sync=line lint docs next)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The documentation with the API reference, in docs/_build/html; a warning is an error, and no network is needed.
docs: $(INSTALLED)
	$(BIN)/python benchmarks/render.py --check
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html

# The same with the outputs of the notebooks, run one after the other where they have changed since the last time: up to half
# an hour on two cores.
docs-full: $(INSTALLED)
	LIKEJAX_RUN_NOTEBOOKS=1 $(MAKE) docs

# The notebooks in Jupyter, with all that they import.
notebooks: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e '.[notebooks]'
	$(BIN)/python -m jupyter lab notebooks

# What a change of JAX or Flax would break, on the newest of them and of Python, with the defaults that Flax NNX announces: the
# contract of one density of each family, training, checkpoints and resume.
next:
	@if $(NEXT_PYTHON) --version >/dev/null 2>&1; then $(MAKE) run-next; \
	else echo "next: no $(NEXT_PYTHON) on this machine, the tests on the newest JAX are left out"; fi

.PHONY: run-next
run-next: $(NEXT_VENV)/.installed
	NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false $(NEXT_VENV)/bin/python $(PYTEST) \
	  tests/test_training.py $(NEXT_TESTS)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

$(NEXT_VENV)/.installed: pyproject.toml
	$(NEXT_PYTHON) -m venv $(NEXT_VENV)
	$(NEXT_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(NEXT_VENV)/bin/python -m pip install --quiet -e '.[export,tensorboard,tables,hub]' 'pytest>=9' 'pytest-xdist>=3.6'
	touch $@

clean:
	rm -rf $(VENV) $(NEXT_VENV) .cache demo docs/_build
