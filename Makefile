# `make demo` runs the main job and `make test` the tests; each makes .venv and installs first.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/demo

.PHONY: demo test test-fast walk clip-front lint install clean
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found on PATH"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

demo: install
	$(BIN)/mmfilter demo --out $(OUT)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: install
	$(BIN)/python -m pytest -m fast -n 2 --dist loadfile --no-loadscope-reorder

walk: install
	$(BIN)/python tests/walk.py

clip-front: install
	rm -rf build/clip-front
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest build/clip-front clip-retrieval==2.45.0
	$(BIN)/python -m zipfile -e build/clip-front/clip_retrieval-2.45.0-*.whl build/clip-front

clean:
	rm -rf $(VENV) runs
