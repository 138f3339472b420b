# Every target sets up .venv by itself; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
# Hundreds of processes of the tests would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "DKD needs Python 3.11 or newer; say which with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# Python compiles what is imported, when it is; pip would compile all of 18,000 files, one by one.
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[test]"
	$(BIN)/python -m modeling_dkd.embedding.embedded_checkpoint
	@touch $@

setup: $(READY)  ## make .venv with the tested versions

demo: $(READY)  ## synthetic clips recognised, searched, measured: zero-shot beside DKD, under 2 minutes on two cores
	$(BIN)/python -m modeling_dkd.embedding.embedded_checkpoint
	$(BIN)/dkd demo --output demo

card: demo  ## the card of hub_configs/dkd-tiny anew, with the figures of the demo, and docs/results.md, which has them too
	$(BIN)/dkd card hub_configs/dkd-tiny --repo_id hub_configs/dkd-tiny \
		--results demo/results.json --figures demo/gain_by_shift.png
	$(BIN)/python -m benchmarks.results_page

publish: $(READY)  ## CONFIG=hub_configs/NAME.yaml: show what would be published of its run; nothing is sent
	@test -n "$(CONFIG)" || { echo "say which: make publish CONFIG=hub_configs/NAME.yaml"; exit 1; }
	$(BIN)/dkd publish --config $(CONFIG)

results: $(READY)  ## docs/results.md from the JSON files in docs/
	$(BIN)/python -m benchmarks.results_page

bench: $(READY)  ## ours beside what a user would write, docs/benchmarks.md; 20 minutes on two cores, clips of DKD_DATA
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks

growth: $(READY)  ## how time and memory grow with N, K, D, frames, steps, streams: docs/growth.md
	$(BIN)/python benchmarks/growth.py

docs: $(READY)  ## site/: the pages of docs/ with the API from docstrings; a broken link is an error
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(READY)  ## docs/pictures: the demo, the pages of the commands, embeddings of real clips where DKD_DATA has them
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.pictures

gpu-check: $(READY)  ## fit, forward, update, training, bfloat16, compile on CUDA beside the CPU; minutes on one GPU
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.gpu_check

space: $(READY)  ## try it on clips of your own: a page at http://127.0.0.1:7860
	$(BIN)/dkd space

# Two test processes with one thread each: threads of both would only wait for each other. Each begins with one half of
# the files, so that fixtures of a file are made once.
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(READY)  ## the fast tests, 3 minutes on two cores
	$(PYTEST) -m "not slow"

# The runtimes of others, with threads of their own, in processes that run nothing else: there a test process lost its
# pipe to pytest now and then while it waited for a command.
test-slow: $(READY)  ## the others: processes, the browser, the wheel, real data in full
	$(PYTEST) -m slow --ignore=tests/interop
	$(PYTEST) -m slow tests/interop

# torchvision alone: what it needs is there, and its newest build would bring another torch. One that does not fit keeps
# transformers from being imported, so it does not stay.
test-extras: $(READY)  ## open_clip and mteb, installed for their tests alone
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt --no-deps torchvision
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[open_clip,mteb]"
	$(PYTEST) tests/test_open_clip.py tests/interop/test_mteb_model.py; status=$$?; \
		$(BIN)/python -m pip uninstall --quiet --yes torchvision timm open_clip_torch mteb; exit $$status

test-all: test test-slow test-extras  ## every test once

wheel: $(READY)  ## dist/: the wheel and the source distribution
	$(BIN)/python -m hatchling build -d dist

faults: $(READY)  ## damage, kill, starve and race everything, count what survives; 5 to 30 minutes
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m faults --output docs

fuzz: $(READY)  ## 10 minutes of coverage-guided fuzzing of the readers with atheris (Linux)
	$(BIN)/python -m pip install --quiet atheris==3.0.0
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m faults.fuzz

test-matrix: $(READY)  ## the fast tests with the oldest and the newest allowed versions, on every Python there is
	$(BIN)/python tests/version_matrix.py

quality: $(READY)  ## what CI checks besides the tests: format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

style: $(READY)  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) .venv-matrix demo dist site runs .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup demo card publish results bench growth gpu-check docs pictures space wheel test test-slow test-extras test-all faults fuzz test-matrix quality style clean
