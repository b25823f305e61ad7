# make demo         the whole chain on synthetic recordings: the machinery, not a result
# make reproduce    the report's run on the real recordings
# make improved     our own recipe on the real recordings
# make ensemble     the same, and four more models that vote with it
# make report       the page of the shipped model, and then that of the report's run with random weights beside it, on the real
#                   recordings; DATA=path/of/training2017.zip where they are
# make predict-only installs what predict.py needs, into .venv-predict
# make test         the tests; TRAINING2017=path/of/training2017.zip adds those on the real recordings
# make test-slow    the slow and rare ones; make test-faults: those of kills, full disks, damaged and strangers' files, all of them
# make numbers      makes again what README, RESULTS and the model card say of the shipped model, and names what differs
# make lint         ruff; make bench: the speed of the report's run against ours, and of predict.py for many recordings
# make lock         renew requirements.lock, the exact versions that are installed, from requirements-dev.txt

PYTHON ?= python3
PY := $(CURDIR)/.venv/bin/python

# make REQUIREMENTS=requirements-dev.txt .venv/installed    installs the newest allowed versions instead
REQUIREMENTS ?= requirements.lock

.PHONY: demo reproduce improved ensemble report predict-only test test-slow test-faults numbers lint bench lock
.DELETE_ON_ERROR:

.venv/installed: requirements.txt requirements-predict.txt requirements-dev.txt requirements.lock
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	@echo "installing into .venv (about 3 GB, a few minutes)"
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@touch $@

# The first recordings of the test split: noise, other, normal, fibrillation.
DEMO_FILES = $(foreach record,A00001 A00004 A00030 A00059,data/training2017/$(record).hea)

demo: .venv/installed
	rm -rf demo && mkdir demo
	$(PY) synthetic.py demo/data/training2017 --count 150
	cd demo && if $(PY) ../model.py > model.txt; then weights=imagenet; else weights=random; \
	  echo "going on with random weights: what follows shows the machinery, not a result"; fi && \
	$(PY) ../main.py --data data/training2017 --weights $$weights --epochs 10 --run report && \
	$(PY) ../evaluation.py --run report && \
	$(PY) ../gc_implementation.py --run report
	cd demo && \
	$(PY) ../main.py --data data/training2017 --recipe improved --epochs 30 --batch-size 8 --run improved && \
	$(PY) ../evaluation.py --run improved && \
	echo "noise, other, normal and fibrillation of the synthetic test split, classified by the model trained just now:" && \
	$(PY) ../predict.py --model models/improved.keras $(DEMO_FILES) && \
	echo "the same by the shipped model, which was trained on real recordings:" && \
	$(PY) ../predict.py $(DEMO_FILES)
	@echo
	@echo "The recordings were synthetic: the scores above say nothing about real ones. All files are in demo/."
	@echo "Open demo/figures/example_recordings.png (what the recordings look like),"
	@echo "     demo/figures/improved/test_confusion_matrix.png (how they were classified) and"
	@echo "     demo/figures/report/gradcam_A.png (where the report's network looked)."

reproduce: .venv/installed
	$(PY) main.py
	$(PY) evaluation.py
	$(PY) gc_implementation.py

improved: .venv/installed
	$(PY) main.py --recipe improved
	$(PY) evaluation.py --run improved
	$(PY) gc_implementation.py --run improved

# Three apart: the networks of heartbeats of each have its seed and the next two.
SEEDS = 45 48 51 54

ensemble: improved
	for seed in $(SEEDS); do $(PY) main.py --recipe improved --seed $$seed || exit; done
	$(PY) evaluation.py --model models/improved.keras $(foreach seed,$(SEEDS),models/improved-seed-$(seed).keras)

DATA ?= data/training2017.zip
SHIPPED = --model pretrained/improved.keras --data $(DATA)
RANDOM = --run paper-weights-random --data $(DATA)

report: .venv/installed
	$(PY) evaluation.py $(SHIPPED)
	$(PY) gc_implementation.py $(SHIPPED)
	$(PY) gc_implementation.py $(SHIPPED) --checks
	$(PY) report.py --run pretrained-improved --data $(DATA)
	$(PY) main.py --weights random --data $(DATA)
	$(PY) evaluation.py $(RANDOM)
	$(PY) gc_implementation.py $(RANDOM)
	$(PY) gc_implementation.py $(RANDOM) --checks
	$(PY) report.py --run paper-weights-random pretrained-improved --data $(DATA)

predict-only: .venv-predict/installed
	.venv-predict/bin/python predict.py --check

.venv-predict/installed: requirements-predict.txt requirements.lock
	$(PYTHON) -m venv .venv-predict
	@echo "installing into .venv-predict (about 0.5 GB, a minute)"
	.venv-predict/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-predict.txt -c requirements.lock
	@# wfdb asks for Matplotlib, a sixth of it all, to draw what nobody draws here
	.venv-predict/bin/python -m pip uninstall --quiet --yes --disable-pip-version-check matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing
	@touch $@

test: .venv/installed
	$(PY) -m pytest

test-slow: .venv/installed
	$(PY) -m pytest -m slow

test-faults: .venv/installed
	$(PY) -m pytest -n 0 -s -m "slow or not slow" tests/faults

numbers: .venv/installed
	$(PY) dataset.py $(DATA)
	TRAINING2017=$(DATA) $(PY) -m pytest -n 0 -m "" tests/test_numbers.py

lint: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: .venv/installed
	$(PY) benchmarks/paper_run.py
	$(PY) benchmarks/many_recordings.py

lock: .venv/installed
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --upgrade requirements-dev.txt -o requirements.lock
