# Everything runs through .venv, so nothing needs activating. `make` alone lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test slow run house docs clean check lab mini lib venv torture experiments

help: ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## run the whole method on the mini world, 17 minutes or less on 2 cores (options: ARGS="--seed 1 --out runs/other")
	$(BIN)/emofeedback demo $(ARGS)

test slow run docs check torture: export HF_HUB_OFFLINE = 1
test slow run torture experiments: export OMP_NUM_THREADS ?= 1
ifndef OMP_WAIT_POLICY
# as emofeedback/__init__.py, for notebooks that import torch before it
test slow run lab: export GOMP_SPINCOUNT ?= 3000
endif

test: $(READY) ## test all of it: repository, lesson cells of every notebook, docs
	$(BIN)/python -m pytest tests -n 2 --dist loadfile
	$(BIN)/python tools/test_nbs.py
	$(BIN)/python tools/build_docs.py

slow: $(READY) ## test the notebooks with their slow cells too
	$(BIN)/python tools/test_nbs.py --flags slow --timeout 3600 --jobs 1

torture: $(READY) ## kill, starve and feed nonsense to every command, some 2 hours of one core (options: ARGS="--works demo")
	mkdir -p nbs/recorded/reliability
	EMOFEEDBACK_TORTURE=1 EMOFEEDBACK_RECORD=nbs/recorded/reliability $(BIN)/python -m pytest tests/reliability tests/test_integrity.py
	$(BIN)/python tests/bench/long_run.py nbs/recorded/reliability/long_run.json
	$(BIN)/python tests/reliability/kills.py nbs/recorded/reliability $(ARGS)

experiments: $(READY) ## make the rows behind the experiment pages again, into runs; some 14 hours of one core (reckoned from its parts)
	$(BIN)/emofeedback study main
	$(BIN)/emofeedback study rounds
	$(BIN)/emofeedback study drawing
	$(BIN)/python tests/bench/objectives.py runs/objectives
	$(BIN)/python tests/bench/advice.py runs/advice
	$(BIN)/python tests/bench/transitions.py runs/transitions
	$(BIN)/python tests/bench/judge_ablation.py runs/judge_ablation
	$(BIN)/python tests/bench/hacking.py runs/hacking
	$(BIN)/python tests/bench/hacking.py runs/poor --names poor
	$(BIN)/python tests/bench/hacking.py runs/poor --names poor_alone --seeds 0 --updates 180
	$(BIN)/python tests/bench/hacking.py runs/misled --names pale,smooth --seeds 0
	$(BIN)/python tests/bench/card.py runs/card

lab: $(READY) ## open the notebooks in JupyterLab (options: ARGS="--port 8889 --no-browser")
	$(BIN)/python tools/lab.py nbs/index.ipynb $(ARGS)

house: $(READY) ## list what breaks the laws of the house
	$(BIN)/python tools/house.py

docs: $(READY) ## write README.md and build the site into _docs
	$(BIN)/python tools/build_docs.py

run: $(READY) ## run the notebooks in reading order and store their outputs (options: ARGS="nbs/data --flags slow --stale")
	$(BIN)/python tools/run_nbs.py $(ARGS)

mini: $(READY) ## train the mini world's bundled models again, from nothing
	$(BIN)/emofeedback train-mini $(ARGS)

lib: $(READY) ## write the package from the notebooks
	$(BIN)/nbdev_export

clean: $(READY) ## strip the notebooks of what should not be committed
	$(BIN)/nbdev_clean

check: lib clean ## fail if a generated file differs from what is committed
	$(BIN)/python tools/build_docs.py --check
	git diff --exit-code

venv: $(BIN)/python ## only make .venv, say to put a torch of your choice into it before the rest

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$("$(PYTHON)" --version) is too old: 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV): is $(CURDIR) writable, with room for 3 GB, and is Python's venv module there (Debian, Ubuntu: apt install python3-venv)?" >&2; exit 1; }

$(READY): settings.ini setup.py constraints.txt | $(BIN)/python
	@test ! -L $(VENV) || { echo "$(VENV) is a link to another environment, which would lose its emofeedback to this copy: delete the link, and call again for an environment of its own" >&2; exit 1; }
	@echo "Installing into $(VENV): some minutes, and only this once"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' || { echo "The installation did not finish; the reason stands above. What was fetched is kept: the same command tries again." >&2; exit 1; }
	@touch $@
