"""Starts every two scripts at once in one folder, on one run, one feature cache, one table and one study.

python tests/faults/pairs.py FOLDER [NAME...]      all pairs, or those of the named scripts

Each must end as it does alone, or be refused in one sentence that names the other process, and then end so when it is
started again. What both leave must be what one leaves after the other.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from itertools import combinations_with_replacement
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
DATA = ["--data", "set"]
TINY = ["--weights", "random", "--backbone", "compact", "--seconds", "10", "--epochs", "3", "--run", "tiny"]
SWEEP = ["--engine", "local", "--count", "2", "--config", "tiny.yaml", "--recipe", "improved"]
SCRIPTS = {
    "main": ["main.py", *DATA, "--recipe", "improved", "--members", "network,trees", "--trees-rounds", "3", *TINY],
    "evaluation": ["evaluation.py", *DATA, "--run", "tiny"],
    "gradcam": ["gc_implementation.py", *DATA, "--run", "tiny"],
    "report": ["report.py", *DATA, "--run", "tiny"],
    "table": ["predict.py", "set", "--csv", "answers.csv"],
    "pages": ["predict.py", "set/A00001.hea", "set/A00002.hea", "--html", "pages"],
    "sweep": ["sweeping.py", *DATA, *SWEEP],
}
ANEW = {"main", "sweep", "table"}  # what is tried where nothing has been trained, searched or answered
# What two runs of one script write differently: times, also in zip files.
VARIES = re.compile(r"\.lock$|^wandb/|^sweeps/|^figures/sweep/|report\.html$|^data/beats/|^models/.*\.csv$")


def start(folder, name):
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, str(PROJECT / SCRIPTS[name][0]), *SCRIPTS[name][1:]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def end(folder, name):
    process = start(folder, name)
    _, told = process.communicate()
    assert process.returncode == 0, (name, told)


def left(folder):
    """{file: SHA-256} of what does not vary."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    assert not [name for name in names if "/." in f"/{name}" and not name.startswith("wandb/")], names
    return {name: hashlib.sha256(content(path)).hexdigest() for name, path in names.items() if not VARIES.search(name)}


def content(path):
    """What a file holds; of a model, where layers have numbers as names, the weights and the trees."""
    if path.suffix != ".keras":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in sorted(archive.namelist()) if name.endswith((".h5", ".txt")))


def pair(folder, first, second):
    """Start both in `folder`; a word on how they ended."""
    processes = [(name, start(folder, name)) for name in (first, second)]
    refused = []
    for name, process in processes:
        _, told = process.communicate()
        assert "Traceback" not in told, (first, second, told)
        if process.returncode:
            lines = [line for line in told.splitlines() if line.startswith("error: ")]
            assert process.returncode in (1, 2) and len(lines) == 1 and re.search(r"process \d+", lines[0]), told
            refused.append(name)
    for name in refused:
        end(folder, name)
    return f"{refused[0]} refused, then as alone" if refused else "both as alone"


def main(folder, *chosen):
    folder.mkdir(parents=True)
    fresh, finished = folder / "fresh", folder / "finished"
    subprocess.run([sys.executable, PROJECT / "synthetic.py", fresh / "set", "--count", "24"], check=True)
    searched = {"trees_rounds": {"values": [2, 3]}, "trees_leaves": {"values": [4, 5]}}
    config = {"method": "random", "metric": {"name": "val_loss", "goal": "minimize"}, "parameters": searched}
    (fresh / "tiny.yaml").write_text(yaml.safe_dump(config))
    shutil.copytree(fresh, finished)
    for name in SCRIPTS:
        if name == "main" or name in (chosen or SCRIPTS):
            end(finished, name)
    expected, tried = left(finished), 0
    for first, second in combinations_with_replacement(chosen or SCRIPTS, 2):
        state, here = fresh if {first, second} <= ANEW else finished, folder / "here"
        shutil.copytree(state, here)
        how = pair(here, first, second)
        found = left(here)
        changed = [name for name in found if found[name] != expected.get(name)]
        assert not changed, (first, second, changed)
        assert state == fresh or found.keys() == expected.keys(), expected.keys() - found.keys()
        shutil.rmtree(here)
        tried += 1
        print(f"{first} and {second}: {how}", flush=True)
    print(f"{tried} pairs tried, all survived", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *sys.argv[2:])
