"""Windows of long recordings, and the episodes of fibrillation that are made of them."""

import numpy as np
import pytest

import beats
import episodes
import members
from episodes import Windows

NAMES = [name for name, _, _ in beats.MEASUREMENTS]


def windows(classes, sure=0.9):
    """`Windows` of 30 s of the classes that a text such as "NNAA" names."""
    probabilities = np.full((len(classes), 4), (1 - sure) / 3)
    probabilities[np.arange(len(classes)), ["ANO~".index(name) for name in classes]] = sure
    begins = 30.0 * np.arange(len(classes))
    rows = np.full((len(classes), len(NAMES)), np.nan, np.float32)
    rows[:, NAMES.index("heart rate")] = 60 + np.arange(len(classes))
    return Windows(begins, begins + 30, probabilities, rows, np.full(len(classes), 30.0))


@pytest.mark.parametrize(
    ("seconds", "rate", "lengths"),
    [(9, 300, [9]), (35, 300, [35]), (41, 250, [30, 11]), (69, 128, [30, 39]), (90, 360.5, [30, 30, 30])],
)
def test_windows_cover_a_recording_once(seconds, rate, lengths):
    places = episodes.cut(round(seconds * rate), rate)
    assert places[0, 0] == 0 and places[-1, 1] == round(seconds * rate)
    assert (places[1:, 0] == places[:-1, 1]).all()
    assert np.diff(places).ravel() / rate == pytest.approx(lengths, abs=0.01)


def test_each_window_is_answered_as_a_recording_of_its_own(monkeypatch):
    """Also with an offset that would make steps at its edges, and in several portions."""
    heard = []

    def answer(models, signals, rates, keep, measured):
        heard.extend(signals)
        assert (
            measured.owners.tolist() == list(range(len(signals)))
            and len(signals) <= 2
            and rates == [250.0] * len(signals)
        )
        return np.tile([0.1, 0.7, 0.1, 0.1], (len(signals), 1))

    monkeypatch.setattr(members, "classify", answer)
    monkeypatch.setattr(episodes, "CHUNK", 2)
    signal = np.sin(np.arange(250 * 100) / 40) + 5000
    found = episodes.classify([], signal, 250.0)
    assert found.begins.tolist() == [0, 30, 60, 90] and found.ends.tolist() == [30, 60, 90, 100]
    assert found.rows.shape == (4, len(NAMES)) and found.probabilities.shape == (4, 4)
    assert [len(piece) for piece in heard] == [7500, 7500, 7500, 2500]
    assert max(np.abs(piece).max() for piece in heard) < 2.1


def test_a_window_of_parts_that_are_too_short_is_noise(monkeypatch):
    monkeypatch.setattr(
        members, "classify", lambda models, signals, *_: np.tile([0.1, 0.7, 0.1, 0.1], (len(signals), 1))
    )
    signal = np.sin(np.arange(250 * 90) / 40)
    signal[33 * 250 : 57 * 250] = 0.3  # 3 s are left at either end of the second window
    found = episodes.classify([], signal, 250.0)
    assert found.usable.tolist() == [pytest.approx(30, abs=0.5), 0, pytest.approx(30, abs=0.5)]
    assert found.probabilities.argmax(1).tolist() == [1, 3, 1]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("NNNNNNNN", []),
        ("NNANNNNN", []),  # one window is an error
        ("NNAAAANN", [(60, 180)]),
        ("NNAANNNNN", [(60, 120)]),
        ("NNAAOAANN", [(60, 210)]),  # one of another class between them
        ("AAANNNNNNAAAA", [(0, 90), (270, 390)]),
        ("AAANNAAANNNN", [(0, 240)]),  # 60 s apart
        ("AAANNNAAANNN", [(0, 90), (180, 270)]),
        ("AAAA", [(0, 120)]),
        ("A", []),
    ],
)
def test_what_counts_as_an_episode(classes, expected):
    assert episodes.find(windows(classes)) == expected


@pytest.mark.parametrize("rate", [129.97, 125.01, 130.03, 512.414, 250.0])
def test_windows_of_whole_samples_make_the_same_episodes(rate):
    """Their edges are rounded to samples, so that two windows last 59.99 or 60.01 s."""
    for place in range(2, 90):
        classes = np.array(list("N" * 100))
        classes[place : place + 2] = classes[place + 4 : place + 7] = "A"
        begins, ends = (episodes.cut(round(3000 * rate), rate) / rate).T
        found = episodes.find(windows(classes)._replace(begins=begins, ends=ends))
        assert len(found) == 1 and np.allclose(found, [(30 * place, 30 * (place + 7))], atol=0.05)


def test_the_summary_is_of_the_time_that_can_be_read():
    told = episodes.summary(windows("NNAAAANN~~NNAANN"))
    assert (told["seconds"], told["readable"], told["episodes"], told["longest"]) == (180, 420, 2, 120)
    assert told["share"] == pytest.approx(180 / 420, abs=1e-4)
    assert [(each["begin"], each["end"]) for each in told["list"]] == [(60, 180), (360, 420)]
    assert episodes.told(told) == (
        "fibrillation for 3:00, 42.9% of the time that can be read, in 2 episodes, the longest 2:00"
    )
    for number in ("3 windows", "30 s", "0.2", "60 s apart", "below 60 s"):
        assert number in told["rule"]
    nothing = episodes.summary(windows("~~~"))
    assert nothing["share"] is None and episodes.told(nothing) == "all windows are noise"
    assert episodes.told(episodes.summary(windows("NNN"))) == "no episode of fibrillation"
    short = episodes.summary(windows("A"))
    assert short["share"] is None and short["seconds"] is None and short["list"] == []
    assert episodes.told(short) == "too short for an episode of fibrillation, which lasts 60 s or more"


def test_a_long_recording_of_several_rhythms_has_no_one_class():
    assert episodes.doubts(windows("N" * 17 + "O" * 3 + "~" * 9), "N") == []
    assert episodes.doubts(windows("N" * 15 + "O" * 5), "N") == ["only 75% of the windows that can be read are N"]
    assert episodes.doubts(windows("N" * 36 + "A" * 4), "N") == ["it has episodes of fibrillation"]
    assert episodes.doubts(windows("AAAA"), "O") == [
        "only 0% of the windows that can be read are O",
        "it has episodes of fibrillation",
    ]
    assert episodes.doubts(windows("AN"), "A") == []  # as long as the challenge's longest
    assert episodes.doubts(windows("A" * 36 + "N" * 4), "A") == [] == episodes.doubts(windows("~" * 9), "~")


def test_windows_that_disagree_are_named():
    assert episodes.disagreement(windows("NNNN")) is None
    sentence = episodes.disagreement(windows("NNNANO" + "N" * 120 + "A"))
    assert sentence == "windows of 30 s disagree: 124 N (first at 0:00), 2 A (first at 1:30), 1 O (first at 2:30)"
    assert episodes.clock(3600 + 62) == "1:01:02"


def test_a_row_for_each_window():
    rows = episodes.table(windows("NA", sure=0.55), 0.6)
    assert [(row["start"], row["class"], row["uncertain"], row["heart_rate"]) for row in rows] == [
        (0, "N", True, 60),
        (30, "A", True, 61),
    ]
    assert rows[0]["quality"] is None and rows[0]["probabilities"]["N"] == 0.55


@pytest.mark.slow
def test_episodes_are_found_in_recordings_joined_from_real_ones(script, real_set, tmp_path):
    process = script(tmp_path, "benchmarks/episodes.py", "--data", real_set)
    assert process.returncode == 0, process.stderr
    normal = next(line for line in process.stdout.splitlines() if line.startswith("N: "))
    assert float(normal.split("at most ")[1].split(",")[0]) < 5
    found, wanted = normal.split("; ")[2].split(" episodes")[0].split(" of ")
    assert found == wanted and int(wanted) >= 15 and normal.endswith("0 false episodes")
