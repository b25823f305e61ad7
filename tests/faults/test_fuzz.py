"""Bytes that no reader expects, made by Hypothesis and atheris: a reader answers or raises a `UserError`."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import scipy.io
from conftest import PROJECT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formats import sampled
from test_reading import UV, write

import beats
import benchmark
import bounds
import dataset
import headers
import inference
import leads
import matlab
import reading
import runs
import scoring
import shell
import texts
import trees
from shell import UserError

FEW, MANY = 40, 3000
QUIET = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
HEADER = (
    b"A00001 2 300/10(5) 9000 05:05:15 1/05/2014\nA.mat 16+24 1000(3)/mV 16 0 -127 0 0 I\nA.mat 16 200 16 0\n# text\n"
)
TABLE = b"time;ECG (mV)\n0,000;0,12\n0,004;0,10\n0,008;-0,31\n0,012;1e-3\n"
DATES = b"2024-01-02 10:00:00.000,1\n2024-01-02 10:00:00.004,2\n2024-01-02 10:00:00.008,3\n"
CARD = json.loads(zipfile.ZipFile(PROJECT / "pretrained" / "improved.keras").read(runs.CARD))
CARD |= {"seen": CARD["seen"][:2], "history": CARD["history"][:2]}


def matlab_file(**more):
    file = io.BytesIO()
    scipy.io.savemat(file, {"val": np.arange(12, dtype=np.int16)[None], "x": "text"}, **more)
    return b"MATLAB 5.0 MAT-file".ljust(116) + file.getvalue()[116:] if not more.get("format") else file.getvalue()


def changed(*wholes):
    """Bytes of a whole file of which a few are changed, taken out or put in; or any bytes."""

    def cut(whole, edits):
        content = bytearray(whole)
        for at, length, new in edits:
            at %= len(content) + 1
            content[at : at + length] = new
        return bytes(content)

    pieces = st.one_of(
        st.binary(max_size=6), st.sampled_from([b"9" * 25, b"-1", b"1e999", b"nan", b"\n", b",", b"\xff"])
    )
    edits = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 8), pieces), min_size=1, max_size=5)
    return st.one_of(st.binary(max_size=200), st.builds(cut, st.sampled_from(wholes), edits))


def survives(read, content):
    with contextlib.suppress(UserError):
        read(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def cards(draw):
    """The shipped model's card with a few values of it, or of a dictionary in it, replaced or missing."""
    card = json.loads(json.dumps(CARD))
    for _ in range(draw(st.integers(1, 3))):
        inner = [card, *(value for value in card.values() if isinstance(value, dict) and value)]
        part = draw(st.sampled_from(inner))
        name = draw(st.sampled_from(sorted(part)))
        if draw(st.booleans()) or len(part) == 1:
            part[name] = draw(JSON)
        else:
            del part[name]
    return json.dumps(card).encode()


def read_card(path):
    def read(content):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(runs.CARD, content)
        card = runs.read_card(path)
        json.dumps(card.history), card.recipe.title, sorted(card.seen)  # what scripts do with it
        for members in (card.recipe.members, *card.recipe.members.split(",")):
            factor, shifts = (card.calibration or {members: (1, [0] * 4)})[members]
            np.float64(1) * factor + np.asarray(shifts, float)

    return read


READERS = {
    "header": (lambda path: lambda content: headers.parse(content, "a.hea"), changed(HEADER)),
    "matlab": (
        lambda path: lambda content: matlab.load(content, "a.mat"),
        changed(matlab_file(), matlab_file(do_compression=True), matlab_file(format="4")),
    ),
    "text": (lambda path: lambda content: texts.read(content, "a.csv"), changed(TABLE, DATES)),
    "card": (lambda path: read_card(path / "a.keras"), st.one_of(cards(), JSON.map(lambda v: json.dumps(v).encode()))),
}


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore")
def test_a_reader_answers_or_refuses(tmp_path, kind, count):
    make, contents = READERS[kind]
    read = make(tmp_path)

    @settings(max_examples=count, **QUIET)
    @given(contents)
    def check(content):
        survives(read, content)

    check()


# ── Coverage-guided ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("atheris"), reason="atheris is not installed: pip install atheris, on Linux")
def test_no_reader_breaks_the_rules(tmp_path):
    """`fuzz.py` for a few inputs of each reader, but those whose package is not installed."""
    call = [sys.executable, PROJECT / "tests" / "faults" / "fuzz.py", "all", "--inputs", "150", "--keep", tmp_path]
    process = subprocess.run(call, text=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    told = [json.loads(line) for line in process.stdout.splitlines()]
    assert process.returncode == 0 and not any(each["found"] for each in told), process.stdout + process.stderr[-2000:]
    assert len(told) > 20 and all(each["inputs"] >= 150 and each["past"] for each in told if "skipped" not in each)


# ── What was found so ───────────────────────────────────────────────────────────────────────────────────────────────


def npz(path, text):
    """A file of arrays one of which is a text, four bytes a character."""
    np.savez(path, ecg=UV, fs=300, unit=np.frombuffer(text, "<U1"))
    return path


def test_libraries_warnings_are_not_printed(tmp_path):
    huge = {"ecg": [(-1) ** place * 1e308 for place in range(3000)], "fs": 300}
    paths = [write(tmp_path, json.dumps(huge | {"unit": unit}), f"{unit}.json") for unit in ("mV", "V")]
    python2 = io.BytesIO()
    np.savez(python2, checksum="a", ecg=np.zeros((3, 7)))
    paths.append(write(tmp_path, python2.getvalue().replace(b"(3, 7), }", b"(3L,7), }"), "python2.npz"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in paths:
            with contextlib.suppress(UserError):
                reading.read(path, unit="raw")
        assert shell.read_arrays(paths[-1]) is None
        scoring.measure(np.zeros(4, int), np.tile([1.0, 0, 0, 0], (4, 1)))  # of a table with one class
    assert not [str(each.message) for each in caught]


@pytest.mark.parametrize("text", [b"\xff\xff\xff\x7f", b"\0\0\x11\0"])
def test_texts_in_arrays_that_are_none_are_refused(tmp_path, text):
    with pytest.raises(UserError, match="is a damaged zip file"):
        reading.read(npz(tmp_path / "a.npz", text))
    with pytest.raises(UserError, match="'A' is none"):
        reading.read(npz(tmp_path / "b.npz", b"A\0\0\0"))
    shell.write_arrays(tmp_path / "kept.npz", keys=np.frombuffer(text, "<U1"))
    assert shell.read_arrays(tmp_path / "kept.npz") is None


def test_names_and_units_in_json_that_are_no_texts(tmp_path):
    told = sampled("", 7, UV)
    told["code"] = {"text": 5}
    with pytest.raises(UserError, match="does not tell its voltage \\('7' is none\\)"):
        reading.read(write(tmp_path, json.dumps(told), "a.json"))
    assert reading.read(write(tmp_path, json.dumps(told), "a.json"), unit="uV").notes[0].startswith("'5' was taken")


def test_a_recording_without_samples_beside_another(tmp_path):
    whole = {"startTime": "1", "waveformSamples": UV.tolist(), "samplingFrequencyHz": "300", "scalingFactor": 1000}
    path = write(tmp_path, json.dumps({"ecgReadings": [whole, whole | {"waveformSamples": []}]}), "a.json")
    assert len(reading.read(path).signal) == len(UV)
    assert leads.no_signal([]) == leads.no_signal([np.nan]) == "no numbers"


def test_a_segment_whose_header_wfdb_reads_in_other_lines(tmp_path):
    write(tmp_path, "a/4 1 50 310\nl_layout 0\ns1 150\n~ 12\ns2 150\n", "a.hea")
    write(tmp_path, "l_layout 1 50 0\n~ 0 1000/mV 16 0 0 0 0 II\n", "l_layout.hea")
    for name, unit in (("s1", "mV"), ("s2", "m\x85")):
        write(tmp_path, f"{name} 1 50 150\n{name}.dat 16 1000/{unit} 16 0 0 0 0 II\n", f"{name}.hea", "latin-1")
        write(tmp_path, UV[:150].astype("<i2").tobytes(), f"{name}.dat")
    with pytest.raises(UserError, match=r"a\.hea is not a WFDB record"):
        reading.read(tmp_path / "a.hea")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, 77])
def test_a_zip_of_methods_and_versions_that_are_not_known(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("REFERENCE.csv", "A1,N\n" * 90)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    entry = content.index(b"PK\1\2")
    if method == zipfile.ZIP_LZMA:
        content[50:60] = bytes(10)  # of its compressed data
    else:
        content[entry + 6 : entry + 8] = bytes([method, 0])  # the version of zip that is needed
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"is not a whole zip file|is damaged at REFERENCE\.csv"):
        dataset.read_recordings(tmp_path / "a.zip")


def test_a_zip_with_a_member_without_a_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"x", b"\0"))
    with pytest.raises(UserError, match=r"holds no REFERENCE\.csv"):
        dataset.read_recordings(tmp_path / "a.zip")


def test_a_member_of_a_zip_that_tells_it_is_packed_to_gigabytes(tmp_path):
    """As much memory would be taken."""
    for name, read in (("REFERENCE.csv", dataset.read_recordings), (runs.CARD, runs.read_card)):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, "A1,N\n")
        content = bytearray((tmp_path / "a.zip").read_bytes())
        entry = content.index(b"PK\1\2")
        content[entry + 20 : entry + 24] = b"\0\0\0\xf0"
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(UserError, match="unpacks to more than 1 GB"):
            read(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("before", "new"),
    [(b"\6\0\0\0\10\0\0\0", b"\6\10"), (b"val\0", b"\0"), (b"val\0", b"\3\0\0\0\0\0\0\xf0")],
)
def test_matlab_numbers_that_loadmat_would_take_gigabytes_for_or_crash_at(before, new):
    """Complex ones, of no type, and of more bytes than there are."""
    content = bytearray(matlab_file())
    at = content.index(before, 128) + len(before)
    content[at : at + len(new)] = new
    with pytest.raises(UserError, match="its numbers are complex, of no type, or more than there is room for"):
        matlab.load(bytes(content), "a.mat")


def test_a_file_is_read_without_taking_memory_for_the_largest(tmp_path):
    path = write(tmp_path, "x" * 100)
    tracemalloc.start()
    assert bounds.read_file(path) == b"x" * 100
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_heap_of_hdf5_that_would_be_read_for_ever(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["names"], file["ecg"], file["fs"] = ["a", "b"], UV, 300
        file.attrs["units"] = "uV"
    assert len(reading.read(tmp_path / "a.h5").signal) == len(UV)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    with pytest.raises(UserError, match="holds nothing of no length"):
        reading.read(write(tmp_path, bytes(content), "b.h5"))


def test_samples_in_json_that_are_one_number(tmp_path):
    told = {"startTime": "1", "waveformSamples": 5, "samplingFrequencyHz": "300", "scalingFactor": 1000}
    with pytest.raises(UserError, match="its samples are no list of numbers"):
        reading.read(write(tmp_path, json.dumps({"ecgReadings": [told]}), "a.json"))


def test_a_network_that_is_none_is_refused_without_a_print(monkeypatch, capfd):
    import onnxruntime

    def refuse(*given):
        raise ValueError("no network")

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", refuse)
    with pytest.raises(ValueError, match="no network"):  # which `runs.load` turns into a sentence
        inference.Onnx(b"")
    assert not "".join(capfd.readouterr())


def test_a_table_of_errors_without_records(tmp_path):
    with pytest.raises(UserError, match="needs lines with the columns record"):
        benchmark.read(write(tmp_path, "x,class,error\nA1,,is damaged\n"))


def test_a_table_of_predictions_with_a_column_twice(tmp_path):
    path = write(tmp_path, "record,A,N,O,~,probability_A\nA1,1,0,0,0,1\n")
    with pytest.raises(UserError, match="has the column probability_A twice"):
        benchmark.read(path)


def test_what_is_said_is_printable_and_short(capsys):
    for name in ("a\x1b[2Jb", "\udc80", "x" * 100_000):
        shell.say(name)
        with pytest.raises(SystemExit):
            shell.run_script(lambda name=name: (_ for _ in ()).throw(UserError(name)))
    said = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() and len(line) < 2100 for line in said) and len(said) == 6
    assert len(leads.listed(["x" * 100_000] * 9)) < 1000


@pytest.fixture(scope="module")
def booster():
    """Two rounds of small trees, among them one that is a single leaf."""
    import lightgbm

    rows = np.random.default_rng(0).normal(size=(80, len(beats.MEASUREMENTS)))
    settings = {"objective": "multiclass", "num_class": 4, "num_leaves": 4, "verbose": -1, "num_iterations": 2}
    return lightgbm.train(settings | {"min_data_in_leaf": 10}, lightgbm.Dataset(rows, np.arange(80) % 4)), rows


def test_trees_answer_as_they_did_before_they_were_checked(booster):
    booster, rows = booster
    loaded = trees.load(booster.model_to_string())
    for contributions in (False, True):
        answers = (each.predict(rows, pred_contrib=contributions) for each in (booster, loaded))
        np.testing.assert_array_equal(*answers)
    assert trees.load(loaded.model_to_string()).num_trees() == 8


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (r"num_leaves=\d+", "num_leaves=400"),
        (r"num_leaves=\d+", "num_leaves=1"),
        (r"(split_feature=)\d+", r"\g<1>99999"),
        (r"(split_feature=)\d+", r"\g<1>-1"),
        (r"(split_feature=)\d+", r"\g<1>ONE"),
        (r"(threshold=)", r"\g<1>1 "),
        (r"(leaf_value=)\S+", r"\g<1>nan"),
        (r"(leaf_value=)\S+", r"\g<1>inf"),
        (r"(left_child=)\S+", r"\g<1>0"),
        (r"(right_child=)\S+", r"\g<1>77"),
        (r"(decision_type=)\d+", r"\g<1>1"),
        (r"(leaf_count=)\d+", r"\g<1>0"),
        (r"num_cat=0", "num_cat=1"),
        (r"is_linear=0", "is_linear=1"),
        (r"max_feature_idx=\d+", "max_feature_idx=3"),
        (r"num_class=4", "num_class=400000"),
        (r"num_tree_per_iteration=4", "num_tree_per_iteration=0"),
        (r"Tree=7", "Leaf=7"),
        (r"shrinkage=", "shrink="),
        (r"version=v4", "version="),
    ],
)
def test_trees_that_would_lead_lightgbm_out_of_its_memory_are_refused(booster, line, instead):
    text = booster[0].model_to_string()
    damaged = re.sub(line, instead.replace("ONE", "\u0661"), text, count=1)
    assert damaged != text
    with pytest.raises((ValueError, KeyError)):
        trees.load(damaged)
