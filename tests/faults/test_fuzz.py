"""Bytes that no reader expects, made by Hypothesis: whatever comes, a reader answers or raises a `UserError`."""

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
import scipy.io
from conftest import PROJECT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headers
import matlab
import runs
import texts
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
