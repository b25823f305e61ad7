"""What README.md, RESULTS.md and the model card say is what the project's files and commands say.

`make numbers` runs all of it, a quarter of an hour on slow cores. Left to the commands beside them are the figures of
other models, of sweeps and trainings, times and memory, and the tables of changed recordings (`evaluation.py
--robustness`) and of episodes (`benchmarks/episodes.py`).
"""

import hashlib
import io
import json
import re
import zipfile

import h5py
import numpy as np
import pytest
from conftest import PROJECT

import beats
import benchmark
import dataset
import inference
import members
import preprocessing
import rhythm
import runs
import scoring
from recipes import RECIPES, Recipe

README, RESULTS, CARD = (PROJECT / name for name in ("README.md", "RESULTS.md", "pretrained/MODEL_CARD.md"))
MODEL = PROJECT / "pretrained/improved.keras"
MEMBERS = ("network", "rhythm", "trees")
NUMBER = r"([-+]?\d[\d,]*(?:\.\d+)?)"


def differences(path, claims):
    """What in the text of `path` is not as in `claims`, {text with # for each number: the numbers as measured}.

    A number may differ by its rounding; texts may be broken into lines anywhere.
    """
    told, found = path.read_text(), []
    for text, values in claims.items():
        pattern = NUMBER.join(r"\s+".join(map(re.escape, part.split(" "))) for part in text.split("#"))
        matches = list(re.finditer(pattern, told))
        if not matches:
            found.append(f"{path.name} does not say: {text}")
        for match in matches:
            for shown, value in zip(match.groups(), values, strict=True):
                digits = len(shown.partition(".")[2])
                if abs(float(shown.replace(",", "")) - value) > 0.5000001 * 10**-digits:
                    found.append(f"{path.name} says {shown}, not {value:.{digits + 1}f}: {match[0]}")
    return found


def test_a_number_that_is_out_of_date_is_found(tmp_path):
    path = tmp_path / "text.md"
    path.write_text("| under 20 s | 1,706 | **0.81** |\nadds -0.5\nto 3")
    right = {"| under 20 s | # | **#** |": (1706, 0.8149), "adds # to #": (-0.46, 3)}
    assert differences(path, right) == []
    assert len(differences(path, {"| under 20 s | # | **#** |": (1707, 0.8151), "adds # for #": (1, 2)})) == 3


# ── What the project's own files tell, in seconds ───────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def card():
    return runs.read_card(MODEL)


def test_the_shipped_file(card):
    text = CARD.read_text()
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() in text
    with zipfile.ZipFile(MODEL) as archive:
        weights = []
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(lambda _, node: weights.append(node.size) if isinstance(node, h5py.Dataset) else None)
        inside = archive.namelist()
    millions = sum(weights) / 1e6
    best = scoring.best_row(card.history, card.recipe.best_epoch)["epoch"]
    versions = [tuple(map(float, re.findall(r"^\d+\.\d+", card.measured[name]))) for name in ("lightgbm", "sleepecg")]
    validation = card.scores["avg_F1_score"], card.scores["challenge_F1"]
    assert {"network.onnx", "rhythm.onnx", "trees-0.txt", "trees-1.txt"} <= set(inside)
    assert card.measured["sequence"] == rhythm.FEATURES
    assert (
        differences(
            CARD,
            {
                "`improved.keras`, # MB": (MODEL.stat().st_size / 1e6,),
                "seed #, up to epoch # of # (best": (card.recipe.seed, best, card.recipe.epochs),
                "network of # million weights": (millions,),
                "(LightGBM #) on # measurements": (*versions[0], len(card.measured["measurements"])),
                "which SleepECG # and": versions[1],
                "of each beat they see # numbers": (len(rhythm.FEATURES),),
                "its first training has # (4-class) and # (N/A/O)": validation,
            },
        )
        + differences(README, {"network of # million weights": (millions,)})
        == []
    )


def test_the_known_answer_and_the_measurements(card):
    answer = json.loads((PROJECT / "pretrained/example.json").read_text())
    assert sum(answer["probabilities"].values() if "probabilities" in answer else answer.values()) == pytest.approx(
        1, abs=1e-3
    )
    count = len(card.measured["measurements"])
    assert count == len(beats.MEASUREMENTS)
    assert differences(README, {"boosted trees (`trees`, LightGBM) on # measurements": (count,)}) == []


def test_shapes_of_images_and_sizes_of_splits(card):
    shapes = []
    for recipe in (Recipe(), RECIPES["improved"]):
        square = np.where(np.arange(60 * 300) // 50 % 2, -32768, 32767).astype(np.int16)
        made = preprocessing.image(preprocessing.prepare(square[: int(recipe.seconds * 300)], 300, recipe), recipe)
        rows, frames = made.shape
        shapes.append((rows - preprocessing.TRACE * recipe.trace, frames))
    assert len(card.seen) == 5116 + 1706
    assert (
        differences(
            README,
            {
                "`log1p`: # × #, resized": shapes[0],
                "up to # Hz: # × #; below it the trace, # values a frame": (108, *shapes[1], preprocessing.TRACE),
                "stratified, seed #: #": (Recipe().split_seed, 5116),
                "is # by the official rule": (scoring.report()["challenge_F1"],),
                "The report's # is": (scoring.report()["avg_F1_score"],),
            },
        )
        + differences(CARD, {"power (dB) of # frequencies up to # Hz × # frames": (shapes[1][0], 108, shapes[1][1])})
        == []
    )


def test_means_are_of_the_rows_above_them():
    rows = [[float(x) for x in line.split("|")[2:8]] for line in RESULTS.read_text().splitlines() if "| fold" in line]
    mean = np.mean(rows, 0)
    shown = "| mean | # | # | # | # | # | # |"
    deviation = {"**#**, standard deviation #": (mean[-1], np.std([row[-1] for row in rows], ddof=1))}
    # Of rounded rows: a half of the last digit more.
    found = [line for line in differences(RESULTS, {shown: mean, **deviation}) if not _nearly(line)]
    assert len(rows) == 5 and found == []


def _nearly(line):
    said, measured = re.match(r"\S+ says (\S+), not (\S+):", line).groups()
    return abs(float(said) - float(measured)) < 0.00101


def commands():
    """{script: flags} that README, RESULTS, the card and the Makefile call the scripts with."""
    found = {}
    for path in (README, RESULTS, CARD, PROJECT / "Makefile", PROJECT / "CONTRIBUTING.md"):
        text = re.sub(r"\\\n", " ", path.read_text())
        for script, rest in re.findall(r"(?<![\w/])(?:\.\./)?((?:benchmarks/)?\w+\.py)((?: +[^`|\n]*)?)", text):
            found.setdefault(script, set()).update(
                re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", rest.split("&&")[0].split("  ")[0])
            )
    return found


def known_flags(script):
    """The flags in the source of a script, and in that of the rooms whose `add_flags` it calls."""
    text = (PROJECT / script).read_text()
    text += "".join((PROJECT / f"{room}.py").read_text() for room in re.findall(r"(\w+)\.add_flags?\(", text))
    fields = vars(Recipe()).items() if "recipes.add_flags" in text else []
    names = [name for name, _ in fields] + [f"no-{name}" for name, value in fields if isinstance(value, bool)]
    return {*re.findall(r'"(--[a-z0-9-]+)"', text), *(f"--{name.replace('_', '-')}" for name in names), "--help"}


def test_flags_of_commands_exist():
    called = commands()
    assert not [script for script in called if not (PROJECT / script).is_file()]
    missing = [f"{script} {flag}" for script, flags in called.items() for flag in flags - known_flags(script)]
    assert missing == [] and sum(map(len, called.values())) > 40


@pytest.mark.parametrize("path", [README, RESULTS, CARD, PROJECT / "CONTRIBUTING.md", *PROJECT.glob("*/README.md")])
def test_links_lead_somewhere(path):
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|mailto:", link)]
    for link in links:
        name, _, place = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if place:
            titles = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            assert place in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], link


def test_files_that_readme_names_exist():
    named = set(re.findall(r"`([\w/*-]+\.(?:py|md|yaml|txt|lock|toml|cff))`", README.read_text()))
    missing = [name for name in named if not list(PROJECT.glob(name))]
    assert set(missing) <= {"README.md"} and len(named) > 40


# ── What the shipped model answers to the real recordings, in a quarter of an hour ──────────────────────────────────


@pytest.fixture(scope="module")
def scored(script, real_set, tmp_path_factory):
    """The folder of figures of the shipped model, scored and its maps checked."""
    cwd = tmp_path_factory.mktemp("numbers")
    for call in (["evaluation.py"], ["gc_implementation.py", "--checks"]):
        process = script(cwd, *call, "--model", MODEL, "--data", real_set, timeout=3600)
        assert process.returncode == 0, process.stderr
    return cwd / "figures/pretrained-improved"


@pytest.fixture(scope="module")
def metrics(scored):
    return json.loads((scored / "metrics.json").read_text())


def pair(row, key):
    """(value, low, high) of a score."""
    return (row[key], *row[f"{key}_interval"])


@pytest.mark.slow
def test_scores(metrics):
    four, nao = pair(metrics, "avg_F1_score"), pair(metrics, "challenge_F1")
    f1 = list(metrics["F1"].values())
    alone, without = metrics["members"], metrics["baselines"]["duration only"]
    even = metrics["baselines"]["exactly 30 s"]
    both = [(alone[name]["avg_F1_score"], alone[name]["challenge_F1"]) for name in MEMBERS]
    calibration, accuracy = metrics["calibration_error"], pair(metrics, "accuracy")
    gains = [pair(alone[name], "challenge_F1_gain") for name in MEMBERS]
    less = [metrics["less_report"][key] for key in ("avg_F1_score", "challenge_F1")]
    less = [number for row in less for number in (row["difference"], *row["interval"])]
    tests = [alone[name]["mcnemar"] for name in MEMBERS]
    auc = pair(metrics, "macro_AUC")
    assert (
        differences(
            README,
            {
                "test split, # recordings": (metrics["recordings"],),
                "the shipped model | **#** (# to #) | **#** (# to #)": (*four, *nao),
                "The shipped model has # (# to #) and # (# to #), with an F1 of #, #, # and #": (*four, *nao, *f1),
                "its network of images alone has # by the challenge's rule, its networks of heartbeats #, its "
                "trees #": [score[1] for score in both],
            },
        )
        + differences(
            RESULTS,
            {
                "the shipped model | # | # | # | # | **#** (# to #) | **#** (# to #) | # | # (# to #) |": (
                    *f1,
                    *four,
                    *nao,
                    accuracy[0],
                    *auc,
                ),
                "recordings of exactly 30 s (#) | | | | | # | # |": (
                    even["recordings"],
                    even["avg_F1_score"],
                    even["challenge_F1"],
                ),
                "its network of images alone | | | | | # | # |": both[0],
                "its networks of heartbeats alone | | | | | # | # |": both[1],
                "its trees alone | | | | | # | # |": both[2],
                "a decision tree | | | | | # | # |": (without["avg_F1_score"], without["challenge_F1"]),
                "The shipped model's is # (# to #) and # (# to #).": less,
                "joining all three adds # (# to #) to the N/A/O of the network of images, # (# to #) to that of the "
                "networks of heartbeats and # (# to #)": sum(gains, ()),
                "to the 4-class F1, # (# to #), # (# to #) and # (# to #).": sum(
                    (pair(alone[name], "avg_F1_score_gain") for name in MEMBERS), ()
                ),
                "they have # recordings right that the network of images has wrong, and # the other way round "
                "(McNemar's exact p = #)": tests[0].values(),
                "against the networks of heartbeats, # and # (p = #)": tests[1].values(),
                "against the trees, # and # (p = #)": tests[2].values(),
                "Noise has # recordings": (sum(metrics["confusion_matrix"][3]),),
                "expected calibration error #), although": (calibration,),
                "`improved`, one model | the report's split | `reference` | # (# to #)": nao,
            },
        )
        + differences(
            CARD,
            {
                "(N, A, O) | # | # to # | # | # | # |": (*nao, *(score[1] for score in both)),
                "4-class average | # | # to # | # | # | # |": (*four, *(score[0] for score in both)),
                **{
                    f"F1 {name} | # | # to # |": (metrics["F1"][name], *metrics["F1_interval"][name])
                    for name in metrics["F1"]
                },
                "accuracy | # | # to # |": accuracy,
                "rest, mean | # |": auc[:1],
                "expected calibration error | # |": (calibration,),
                "adds # (# to #) to the N/A/O of the network of images, # (# to #) to that of the networks of "
                "heartbeats and # (# to #)": sum(gains, ()),
                "Noise is rare, # recordings": (sum(metrics["confusion_matrix"][3]),),
                "exactly 30 s: 4-class #, N/A/O # (# recordings)": (
                    even["avg_F1_score"],
                    even["challenge_F1"],
                    even["recordings"],
                ),
                "but the duration: # and #.": (without["avg_F1_score"], without["challenge_F1"]),
            },
        )
        == []
    )


@pytest.mark.slow
def test_screening_and_groups(metrics):
    rows = {}
    starts = ["the class named |", "P ≥ #, largest sum of both |", "P ≥ #, sensitivity of 95 % |"]
    for start, point in zip(starts, metrics["screening"], strict=True):
        values = pair(point, "sensitivity") + pair(point, "specificity") + tuple(point["predictive_value"].values())
        shown = f"| {start} # (# to #) | # (# to #) | # | # | # | # |"
        rows[shown] = values if point["threshold"] is None else (point["threshold"], *values)
    titles = {"signal quality": "quality "}
    for kind, group in metrics["groups"].items():
        for name, row in group.items():
            if name != "not measured":
                start, score = f"| {titles.get(kind, '')}{name} | # | # (# to #) |", ()
                if row["challenge_F1"] is not None:
                    start, score = f"{start} # (# to #) |", pair(row, "challenge_F1")
                rows[start] = (row["recordings"], *pair(row, "accuracy"), *score)
    named = metrics["screening"][0]
    predictive = [100 * named["predictive_value"][share] for share in ("9%", "5%", "2%", "1%")]
    finds = {
        "calls A, about # are A in a set with 9 % of them, # where 5 %, # where 2 % and # where 1 %": predictive,
        "It then finds # % of them (# to #)": [100 * number for number in pair(named, "sensitivity")],
    }
    assert differences(RESULTS, rows) + differences(CARD, finds) == []


@pytest.mark.slow
def test_checks_of_maps(scored):
    found = json.loads((scored / "gradcam_checks.json").read_text())
    claims, methods = {}, found["methods"]
    starts = {
        "gradcam": "Grad-CAM at the last maps, as in the report",
        "gradcam++": "Grad-CAM++ after block 2",
        "hirescam": "HiResCAM after block 2",
        "occlusion": "**occlusion of beats**",
    }
    assert set(starts) == set(methods) and found["used"] == found["best"] == "occlusion"
    for name, start in starts.items():
        row = methods[name]
        shares, course, curves = row["shares"], row["randomisation"], row["curves"]
        passed = row["passed"].values()
        claims[f"| {start} | #% | # (# to #) | # (# to #) | # (#% empty) | # | # | # of # |"] = (
            100 * shares["padding"]["share"],
            *pair(shares["edges"], "ratio"),
            *pair(shares["early beats"], "ratio"),
            course["correlation"][-1],
            100 * course["empty"][-1],
            *(curves[kind]["map"]["area"] for kind in ("deletion", "insertion")),
            sum(passed),
            len(passed),
        )
    for order, start in (("random", "frames at random"), ("centre", "the centre first")):
        areas = [methods["gradcam"]["curves"][kind][order]["area"] for kind in ("deletion", "insertion")]
        claims[f"| {start} | | | | | # | # | |"] = areas
    course = methods["gradcam++"]["randomisation"]["correlation"]
    narrow = methods["occlusion"]["curves"]["insertion"]["centre"]
    claims |= {
        "on # test recordings, evenly spaced": (found["recordings"],),
        "early beats, in # recordings called O": (methods["occlusion"]["shares"]["early beats"]["recordings"],),
        "correlate by # with the real ones (# with all of it)": (max(course[len(course) // 2 :]), course[-1]),
        "under insertion less that of the centre is # (# to #)": pair(narrow, "map_less"),
    }
    assert differences(RESULTS, claims) == []


@pytest.mark.slow
def test_onnx_answers_as_keras_does(scored, real_set, monkeypatch):
    monkeypatch.chdir(scored.parent.parent)  # where the heartbeats are kept that were measured
    rows = benchmark.read("figures/pretrained-improved/predictions.csv")
    saved = runs.load(MODEL, light=True)
    table = dataset.read_recordings(real_set).set_index("record").loc[rows.record]
    said = members.voices([saved], list(table.signal), list(table.sampling_rate))
    by_keras = benchmark.voices(rows)
    apart = max(np.abs(said[name] - by_keras[name]).max() for name in said)
    assert isinstance(saved.network, inference.Onnx) and apart < 1e-5
    assert "on the test split their probabilities differ by less than 0.00001" in " ".join(CARD.read_text().split())


@pytest.mark.slow
def test_recordings(real_set):
    table = dataset.read_recordings(real_set)
    split, seconds = dataset.split(table), dataset.seconds(table)
    sizes = [int(np.sum(split == name)) for name in ("train", "validation", "test")]
    shares = table.label.value_counts(normalize=True)
    rest = 100 * (shares["O"] + shares["~"]) / (1 - shares["A"])
    span = len(table), seconds.min(), seconds.max()
    assert (
        differences(
            README,
            {
                "Challenge 2017: # single-lead ECG recordings of # to # s": span,
                "seed 42: # train, # validation, # test": sizes,
                "for all #). The tables": (len(table),),
            },
        )
        + differences(
            RESULTS,
            {
                "(# recordings to train on, # for validation, # to test on)": sizes,
                "(# % of this set are)": (100 * shares["A"],),
                "in this set, where # % of them have another rhythm or noise": (rest,),
            },
        )
        + differences(
            CARD,
            {
                "`REFERENCE.csv`: # recordings of # to # s": span,
                "# recordings (60 %); then, from the beginning, on these and the # (20 %)": sizes[:2],
            },
        )
        == []
    )
