"""The network as ONNX: the same answers as Keras's, without Keras, from a small installation."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import PROJECT

import dataset
import inference
import members
import preprocessing
import runs
from synthetic import recording

SHIPPED = PROJECT / "pretrained/improved.keras"


@pytest.fixture(scope="module")
def both():
    """The shipped model as predict.py takes it, and by Keras."""
    return runs.load(SHIPPED, light=True), runs.load(SHIPPED)


def test_onnx_answers_as_keras_does_at_any_length_and_in_any_batch(both):
    light, full = both
    assert isinstance(light.network, inference.Onnx) and not isinstance(full.network, inference.Onnx)
    rng = np.random.default_rng(0)
    signals = [recording("ANO~"[number % 4], seconds, rng) for number, seconds in enumerate((6, 10, 30, 45, 60))]
    images = preprocessing.Images(signals, [300] * 5, light.card.recipe)
    answers = inference.predict(light.network, images)
    np.testing.assert_allclose(answers, inference.predict(full.network, images), atol=1e-5)
    np.testing.assert_allclose(answers, inference.predict(light.network, images, batch_size=3), atol=1e-5)
    assert np.ptp(answers, axis=0).min() > 0.1  # else any two networks would agree


@pytest.mark.parametrize("asked, threads", [("4,2", 4), ("3", 3), ("", 0), ("many", 0)])
def test_threads_as_openmp_may_be_asked_for_them(monkeypatch, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert inference._threads() == threads


@pytest.mark.slow
def test_onnx_answers_as_keras_does_on_real_recordings(both, real_set):
    table = dataset.read_recordings(real_set)
    table = table[~table.record.isin(both[0].card.seen)].iloc[::17]
    signals = table.signal, table.sampling_rate
    measured = members.measure(*signals, keep=False)
    light, full = (members.voices([saved], *signals, keep=False, measured=measured) for saved in both)
    assert len(table) > 90 and list(light) == ["network,rhythm,trees", "network", "rhythm", "trees"]
    for name in light:
        np.testing.assert_allclose(light[name], full[name], atol=1e-4)


@pytest.mark.slow
def test_an_old_model_gets_its_onnx_and_keeps_the_rest(script, tmp_path):
    """And until then it answers by Keras."""
    path = tmp_path / "old.keras"
    with zipfile.ZipFile(SHIPPED) as shipped, zipfile.ZipFile(path, "w") as old:
        for member in shipped.infolist():
            if member.filename != runs.ONNX:
                old.writestr(member, shipped.read(member))
    assert not isinstance(runs.load(path, light=True).network, inference.Onnx)
    process = script(tmp_path, "runs.py", "--onnx", path)
    assert process.returncode == 0 and process.stdout == f"wrote {path}, now with its network as ONNX\n", process.stderr
    with zipfile.ZipFile(SHIPPED) as shipped, zipfile.ZipFile(path) as new:
        assert sorted(new.namelist()) == sorted(shipped.namelist())
        for name in set(new.namelist()) - {runs.ONNX}:
            assert new.read(name) == shipped.read(name), name
    shape = preprocessing.image_shape(runs.read_card(SHIPPED).recipe)
    images = np.random.default_rng(0).random((5, *shape), np.float32) * 255
    one, other = (runs.load(each, light=True).network.predict_on_batch(images) for each in (path, SHIPPED))
    np.testing.assert_allclose(one, other, atol=1e-6)


def imported(cwd, *arguments):
    """(finished process, names of the modules) of a run of predict.py."""
    command = [sys.executable, "-X", "importtime", PROJECT / "predict.py", *arguments]
    process = subprocess.run(command, cwd=cwd, text=True, capture_output=True, timeout=300)
    lines = [line.split("|") for line in process.stderr.splitlines() if line.startswith("import time:")]
    # What is hidden from LightGBM is named here too, after the microsecond that it took to fail.
    return process, {name.strip() for _, took, name in lines[1:] if int(took) > 500}


def test_what_a_prediction_does_not_need_is_not_imported(tmp_path):
    np.savetxt(tmp_path / "heart.txt", recording("N", 12, np.random.default_rng(0)))
    heavy = {"tensorflow", "keras", "neurokit2", "sklearn", "matplotlib", "dask", "joblib", "pywt", "cv2"}
    process, names = imported(tmp_path, "heart.txt", "--fs", "300", "--unit", "uV")
    assert process.returncode == 0, process.stderr[-2000:]
    assert {"lightgbm", "scipy.signal", "onnxruntime"} <= names and not names & (heavy | {"pandas", "wfdb"})
    process, names = imported(tmp_path, PROJECT / "pretrained/example.hea")
    assert process.returncode == 0 and "wfdb" in names and not names & heavy


@pytest.mark.slow
def test_predict_py_alone_needs_half_a_gigabyte_and_no_tensorflow(refusal, tmp_path):
    files = subprocess.check_output(["git", "ls-files"], cwd=PROJECT, text=True).splitlines()
    project = tmp_path / "project"
    for name in files:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, project / name)
    made = subprocess.run(
        ["make", "predict-only", f"PYTHON={sys.executable}"], cwd=project, capture_output=True, text=True
    )
    assert made.returncode == 0 and "ok" in made.stdout, made.stdout + made.stderr
    megabytes = int(subprocess.check_output(["du", "-sm", project / ".venv-predict"]).split()[0])
    assert megabytes <= 500

    def run(*arguments):
        command = [project / ".venv-predict/bin/python", *map(str, arguments)]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, env=os.environ)

    assert run("-c", "import tensorflow").returncode and run("-c", "import keras").returncode
    process = run("predict.py", "pretrained/example.hea", "--json")
    assert process.returncode == 0, process.stderr
    (row,) = json.loads(process.stdout)
    assert row["probabilities"] == pytest.approx(
        json.loads((project / "pretrained/example.json").read_text()), abs=1e-3
    )
    assert run("predict.py", "pretrained/example.hea", "--html", "pages").returncode == 0
    assert "needs the full installation" in next((project / "pages").glob("example-*.html")).read_text()
    looking = "gc_implementation.py", "--file", "pretrained/example.hea"
    assert "pip install -r requirements.txt" in refusal(run(*looking))
    assert "pip install -r requirements.txt" in refusal(run("runs.py", "--onnx", "pretrained/improved.keras"))
