# The two commands of the README are `make demo` and `make test`; each installs all that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?= .cache/demo-home

.PHONY: demo serve test test-all chromium lint cells zoo unit clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)/installed  ## fine-tune a real model on a real dataset, from nothing, in minutes
	$(BIN)/python -P -m demo.run --home $(HOME_DIR)

serve: $(VENV)/installed  ## open the demo's home again
	$(BIN)/luthier serve --home $(HOME_DIR)

unexport PYTHONDONTWRITEBYTECODE  # the suite starts many processes, which should not compile each module again

PYTEST := $(BIN)/python -m pytest -n 3 --dist loadgroup  # many tests wait for a service: more than two cores' worth

test: lint chromium  ## lint, types, import contracts, and the suite with a covering set of designs
	$(PYTEST) -m "not slow and not live"

test-all: lint chromium  ## the same with every design: every algorithm with every update
	$(PYTEST) -m "not live"

chromium:  ## Debian's browser for the tests of the dashboard, which are skipped where it may not be installed
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "no chromium, and it cannot be installed here: the tests of the dashboard will be skipped"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

cells: $(VENV)/installed  ## try every cell of the design space, record what is seen, and print its page
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.cells
	$(BIN)/python -m search.space.docs_page > docs/design-space.md

zoo: $(VENV)/installed  ## train a tiny model of every model type, and print what goes with it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not live" tests/zoo
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo

unit: $(VENV)/installed  ## the fast tests alone
	$(BIN)/python -m pytest tests/unit

clean:
	rm -rf $(VENV) .cache
