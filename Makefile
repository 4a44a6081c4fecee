# `make demo` and `make test` do all the set-up: they create .venv and install what requirements.lock pins.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test lint bench clean
demo: $(READY)
	$(RUN) tools/compare.py configs/compare/demo.yaml
	$(RUN) tools/predict.py runs/demo-deep/seed0 data/synthetic/clips/test/test-00000.mp4

test: $(READY)
	$(RUN) -m pytest -n 2 tests

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

bench: $(READY)
	$(RUN) tools/bench.py

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'mmfusion needs Python 3.10 or newer')"
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.lock
	$(RUN) -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) runs reports
