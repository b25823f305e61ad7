"""Classify ECG recordings: normal (N), atrial fibrillation (A), other rhythm (O) or noise (~). Not a medical device.

    python predict.py A00001.hea                          a WFDB record; also .mat, EDF, and the CSV of an Apple Watch
    python predict.py - < signal.txt --fs 250 --unit mV   standard input
    python predict.py A00001.hea --explain                and why, in a sentence
    python predict.py recordings/ "more/*.edf" --json     a folder, a pattern; JSON or --csv instead of a table
    python predict.py signal.txt --fs 250 --unit mV --lead II
    python predict.py holter.edf --windows                a row for each 30 s, and the episodes of fibrillation
    python predict.py recordings/ --html pages            a page for each recording, and pages/index.html
    python predict.py --check                             versions, the model and its answer on a known recording

Recordings may have any sampling rate and last from 5 s to hours: longer ones than the model's input are cut into
windows, whose logits are averaged, and from 5 minutes on the episodes of fibrillation are told. Exit status: 0 all are
classified, 1 some file or the model cannot be used (the rest is classified all the same), 2 wrong flags.
"""

import csv
import dataclasses
import functools
import glob
import hashlib
import json
import os
import platform
import sys
from collections import namedtuple
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import reading
import runs
from recipes import CLASSES
from shell import UserError, make_folders, parser, progress, run_script, say

SHIPPED = Path(__file__).parent / "pretrained"
CHUNK, SAMPLES = 64, 10_000_000  # recordings, and about their samples, in memory at a time
KEYS = (
    "file",
    "class",
    "uncertain",
    "probabilities",
    "seconds",
    "fibrillation",
    "windows",
    "reasons",
    "notes",
    "error",
)
RECORDINGS = (".edf", ".bdf", ".atc", ".dcm")  # what else lies in a folder is looked at where it holds no WFDB records
# What is asked for of each recording, as `classify` takes it.
Wanted = namedtuple("Wanted", "confidence explained windowed page")
EPISODES = ("share", "seconds", "readable", "episodes", "longest")  # what CSV tells of them
SUFFIXES = (*RECORDINGS, ".csv", ".txt", ".tsv", ".npy", ".npz", ".h5", ".hdf5", ".parquet", ".xlsx", ".json", ".xml")


def main():
    arguments = parse()
    try:
        paths = find(arguments.files, arguments.recursive)
        models = load(arguments.model)
        options = arguments.lead, arguments.fs, arguments.unit
        if arguments.check:
            return check(arguments.model, models)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    explained = arguments.explain or arguments.json
    try:
        listed, page = {}, None
        if arguments.html:
            make_folders(arguments.html)
            page = functools.partial(write_page, arguments.html, models, arguments.confidence, listed)
        rows = classify(paths, models, options, arguments.confidence, explained, arguments.windows, page)
        if arguments.html:
            write_index(arguments.html, [listed[row["file"]] for row in rows])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    show = print_json if arguments.json else print_csv if arguments.csv else print_table
    # A name or a note that the terminal cannot show must not cost the answers.
    sys.stdout.reconfigure(encoding="utf-8" if show != print_table else None, errors="backslashreplace")
    show(rows)
    failed = sum("error" in row for row in rows)
    if failed:
        say(f"{failed} of {len(rows)} files could not be classified")
    return 1 if failed else 0


def parse():
    """The flags, checked."""
    flags = parser(__doc__)
    flags.add_argument("files", nargs="*", metavar="FILE", help="recordings, folders or patterns; - is standard input")
    flags.add_argument("--recursive", action="store_true", help="search the folders inside folders too")
    flags.add_argument(
        "--model",
        type=Path,
        action="append",
        metavar="FILE",
        help="saved model (default: the one shipped); given several times, they are averaged",
    )
    flags.add_argument(
        "--lead", metavar="NAME", help="name or number of the lead (default: I, else II, else the first)"
    )
    against = "for files that do not tell theirs, or against those that do"
    flags.add_argument("--fs", type=float, metavar="HZ", help=f"sampling rate, {against}")
    flags.add_argument("--unit", choices=("mV", "uV", "raw"), help=f"unit, {against}")
    flags.add_argument(
        "--confidence", type=float, default=0.5, metavar="P", help="call a class uncertain below this probability"
    )
    flags.add_argument(
        "--explain", action="store_true", help="say why in a sentence: rate, rhythm, P waves, and what decided"
    )
    flags.add_argument(
        "--windows", action="store_true", help="a row for each window of 30 s too, and the episodes of fibrillation"
    )
    flags.add_argument(
        "--html", type=Path, metavar="FOLDER", help="write a page for each recording and an index.html that lists them"
    )
    form = flags.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    flags.add_argument(
        "--check", action="store_true", help="print versions and the model's answer on a known recording"
    )
    arguments = flags.parse_args()
    if not arguments.files and not arguments.check:
        flags.error("name recordings, a folder or a pattern, or pass --check")
    if arguments.files and arguments.check:
        flags.error("--check has a recording of its own; name others without it")
    if any(name.endswith(".keras") for name in arguments.files):
        flags.error("a model is not a recording; write --model before each of several models")
    if not 0 <= arguments.confidence <= 1:
        flags.error(f"--confidence must be from 0 to 1, not {arguments.confidence}")
    low, high = reading.RATES
    if arguments.fs is not None and not low <= arguments.fs <= high:
        flags.error(f"--fs must be from {low} to {high} Hz, not {arguments.fs:g}")
    arguments.model = arguments.model or [SHIPPED / "improved.keras"]
    return arguments


def load(paths):
    """[`runs.Saved`] of saved models. Whatever a model was trained to read, here the whole recording counts."""
    for path in paths:
        runs.read_card(path)  # before the first one is loaded, which takes seconds
    models = [runs.load(path) for path in paths]
    return [
        saved._replace(card=saved.card._replace(recipe=dataclasses.replace(saved.card.recipe, vote=True)))
        for saved in models
    ]


def find(names, recursive=False):
    """The recordings that `names` mean, as paths: files and WFDB record names as they are, patterns and folders' files.

    recursive: those of the folders inside folders too. A folder without recordings stays in the list, where reading it
    will fail; so does -, standard input.
    """
    paths = []
    for name in names:
        known = name == "-" or Path(name).exists()
        matches = [] if known else [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        for path in matches or [Path(name)]:
            folder = name != "-" and path.is_dir() and os.access(path, os.R_OK)
            folders = [path] if folder else []
            if folder and recursive:
                folders += sorted(Path(inner) for inner, _, _ in os.walk(path) if Path(inner) != path)
            paths += [file for each in folders for file in inside(each)] or [path]
    return list(dict.fromkeys(paths))  # a file named twice, once by its folder, is one


def inside(folder):
    """The recordings in a folder, by their suffixes in any case; text files and the like only where it holds no WFDB
    records, whose lists and labels are text too.
    """
    files = sorted(entry for entry in folder.iterdir() if entry.is_file())
    headers = {entry.stem.lower() for entry in files if entry.suffix.lower() == ".hea"}
    suffixes = RECORDINGS if headers else SUFFIXES
    found = [
        entry
        for entry in files
        if entry.suffix.lower() in (".hea", *suffixes)
        or (entry.suffix.lower() == ".mat" and entry.stem.lower() not in headers)
    ]
    left = sum(entry.suffix.lower() in SUFFIXES for entry in set(files).difference(found))
    if left:
        which = "other files are" if left > 1 else "other file is"
        say(f"{folder} holds WFDB records, so {left} {which} left out; name what else to classify")
    return found


def classify(paths, models, options, confidence, explained, windowed=False, page=None):
    """A dict for each of `paths`: file, class, uncertain, probabilities, seconds and notes; or file and error.

    models: [`runs.Saved`], whose probabilities are averaged; options: lead, fs and unit, as `reading.read` takes
    them; confidence: the probability below which a class is called uncertain; explained: add the `reasons`; windowed:
    add the `windows` and, which recordings from 5 minutes on have always, the `fibrillation`; page: a function of
    (row, recording, windows) that is called with each row, or None.
    """
    wanted = Wanted(confidence, explained, windowed, page)
    rows, waiting = [], []  # waiting: (row, recording) of those that are read and not yet classified
    with progress(len(paths), "classifying", "recording") as bar:
        for path in paths:
            row = {"file": str(path)}
            rows.append(row)
            try:
                waiting.append((row, reading.read(path, *options)))
            except UserError as error:
                row["error"] = str(error)
                if page:
                    page(row, None, None)
            if len(waiting) == CHUNK or sum(len(recording.signal) for _, recording in waiting) > SAMPLES:
                answer(waiting, models, wanted)
            bar.update()
        if waiting:
            answer(waiting, models, wanted)
    return rows


def answer(waiting, models, wanted):
    """Write what the models say of each recording into its row, for all (row, recording) in `waiting`, and empty it.

    wanted: a `Wanted`.
    """
    import episodes

    short = [pair for pair in waiting if _seconds(pair[1]) <= episodes.LONG]
    if short:
        answers = together([recording for _, recording in short], models, wanted)
        for pair, said in zip(short, answers, strict=True):
            complete(*pair, said, in_windows(*pair, models, wanted), models, wanted)
    for row, recording in waiting:
        if _seconds(recording) > episodes.LONG:
            windows = in_windows(row, recording, models, wanted)
            complete(row, recording, (episodes.overall(windows), windows.rows), windows, models, wanted)
    waiting.clear()


def _seconds(recording):
    return len(recording.signal) / recording.sampling_rate


def together(recordings, models, wanted):
    """[(probabilities (4,), measurements of its heartbeats (windows, measurements) or None)] of some recordings."""
    import members

    signals, rates, _ = zip(*recordings, strict=True)
    measured = members.measure(models, signals, rates, keep=False)
    if wanted.explained or wanted.page:
        import beats

        measured = measured or beats.measure_all(signals, rates, keep=False)
    answers = members.classify(models, signals, rates, False, measured)
    return [
        (probabilities, measured and measured[0][measured[1] == place]) for place, probabilities in enumerate(answers)
    ]


def in_windows(row, recording, models, wanted):
    """The `episodes.Windows` of a recording, or None where there is only one and nobody asked for it."""
    import episodes

    count = len(episodes.cut(len(recording.signal), recording.sampling_rate))
    if count == 1 and not wanted.windowed:
        return None
    with progress(count, f"windows of {row['file']}", "window") as bar:
        return episodes.classify(models, recording.signal, recording.sampling_rate, bar)


def complete(row, recording, said, windows, models, wanted):
    """Write what there is to say of a recording into its `row`, and its page.

    said: (probabilities (4,), measurements) of the whole; windows: its `episodes.Windows` or None; wanted: a `Wanted`.
    """
    probabilities, rows = said
    rate = models[0].card.recipe.sampling_rate
    notes = list(recording.notes)
    if recording.sampling_rate != rate:
        notes.append(f"resampled from {recording.sampling_rate:g} to {rate} Hz")
    row |= {
        "class": CLASSES[probabilities.argmax()],
        "uncertain": bool(probabilities.max() < wanted.confidence),
        "probabilities": {name: round(float(p), 4) for name, p in zip(CLASSES, probabilities, strict=True)},
        "seconds": round(_seconds(recording), 2),
        "notes": notes,
    }
    if windows:
        add_windows(row, windows, wanted)
    if wanted.explained or wanted.page:
        import reasons

        row["reasons"] = reasons.explain(probabilities, rows, models)
    if wanted.page:
        wanted.page(row, recording, windows)
    if not wanted.explained:
        row.pop("reasons", None)


def add_windows(row, windows, wanted):
    """Write into a `row` what its `episodes.Windows` tell: where they disagree, the episodes, and each if wanted."""
    import episodes

    differ = episodes.disagreement(windows)
    row["notes"] += [differ] if differ else []
    if wanted.windowed or row["seconds"] > episodes.LONG:
        row["fibrillation"] = episodes.summary(windows)
    if wanted.windowed:
        row["windows"] = episodes.table(windows, wanted.confidence)


def write_page(folder, models, confidence, listed, row, recording, windows):
    """Write the page of a recording into `folder` and note it in `listed`, {file: (row, name of its page)}.

    A file with an error has no recording, and no page.
    """
    import pages

    number = 1 + sum(name is not None for _, name in listed.values())
    name = pages.recording(folder, number, row, recording, windows, models, confidence) if recording else None
    listed[row["file"]] = dict(row), name


def write_index(folder, listed):
    """Write the index of the pages that `write_page` has written."""
    import pages

    pages.index(folder, listed)
    say(f"wrote {folder / 'index.html'}; open it in a browser")


def print_table(rows):
    """Print a line for each recording, with its notes or its error at the end."""
    width = max(len("file"), *(len(row["file"]) for row in rows))
    print(f"{'file':<{width}}  {'class':<13}" + "".join(f"{name:>7}" for name in CLASSES) + f"{'seconds':>10}  notes")
    for row in rows:
        if "error" in row:
            print(f"{row['file']:<{width}}  {'-':<13}{'':>38}  error: {row['error']}")
            continue
        shown = f"{row['class']}, uncertain" if row["uncertain"] else row["class"]
        probabilities = "".join(f"{p:>7.3f}" for p in row["probabilities"].values())
        line = f"{row['file']:<{width}}  {shown:<13}{probabilities}{row['seconds']:>10.1f}  {'; '.join(row['notes'])}"
        print(line.rstrip())
        if "reasons" in row:
            print(f"{'':<{width}}  {row['reasons']['sentence']}")
        if "fibrillation" in row:
            print_episodes(row, width)


def print_episodes(row, width):
    """Print the episodes of a row and, where it has them, its windows, indented by `width`."""
    from episodes import clock, told

    print(f"{'':<{width}}  {told(row['fibrillation'])}")
    for episode in row["fibrillation"]["list"]:
        print(f"{'':<{width}}  from {clock(episode['begin'])} to {clock(episode['end'])}")
    for window in row.get("windows", []):
        shown = f"{window['class']}, uncertain" if window["uncertain"] else window["class"]
        heart = "-" if window["heart_rate"] is None else f"{window['heart_rate']:.0f}/min"
        quality = "-" if window["quality"] is None else f"quality {window['quality']:.0f} %"
        line = f"{clock(window['start']):>{width}}  {shown:<13}" + "".join(
            f"{p:>7.3f}" for p in window["probabilities"].values()
        )
        print(f"{line}{window['seconds']:>10.1f}  {heart}, {quality}")


def print_json(rows):
    """Print the rows as a JSON list of objects with the same keys; null is what a row has not."""
    print(json.dumps([dict.fromkeys(KEYS) | row for row in rows], indent=2, ensure_ascii=False))


def print_csv(rows):
    """Print the rows as CSV, a column for each probability; with windows, a row for each window instead."""
    if any("windows" in row for row in rows):
        return print_windows_csv(rows)
    names = ["file", "class", "uncertain", *(f"probability_{name}" for name in CLASSES), "seconds", "notes", "error"]
    if any("fibrillation" in row for row in rows):
        names[-2:-2] = [f"fibrillation_{name}" for name in EPISODES]
    if any("reasons" in row for row in rows):
        names.insert(-2, "reasons")
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {name: row.get(name, "") for name in names}
        flat |= {f"probability_{name}": p for name, p in row.get("probabilities", {}).items()}
        if "fibrillation" in row:
            flat |= {f"fibrillation_{name}": row["fibrillation"][name] for name in EPISODES}
        if "reasons" in row:
            flat["reasons"] = row["reasons"]["sentence"]
        writer.writerow(flat | {"notes": "; ".join(row.get("notes", []))})


def print_windows_csv(rows):
    """Print the windows of the rows as CSV, a line each, and a line for each file with an error."""
    chances = [f"probability_{name}" for name in CLASSES]
    names = ["file", "start", "seconds", "class", "uncertain", *chances, "heart_rate", "quality", "error"]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        for window in row.get("windows", [{"error": row.get("error")}]):
            flat = {f"probability_{name}": p for name, p in window.get("probabilities", {}).items()}
            writer.writerow(window | flat | {"file": row["file"]})


def check(paths, models):
    """Print versions, each model's SHA-256, and whether the shipped one answers as it did when it was made."""
    from keras_setup import keras

    backend = keras.backend.backend()
    print(f"Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in ("keras", "numpy", "scipy")))
    print(f"backend {backend} {import_module(backend).__version__}")
    for path in paths:
        title = runs.read_card(path).recipe.title
        print(f"{path}: recipe {title}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    (row,) = classify([SHIPPED / "example.hea"], models, (None, None, None), 0.5, False)
    print_table([row])
    if "error" in row or [path.resolve() for path in paths] != [(SHIPPED / "improved.keras").resolve()]:
        return 1 if "error" in row else 0
    expected = json.loads((SHIPPED / "example.json").read_text())
    difference = max(abs(row["probabilities"][name] - expected[name]) for name in CLASSES)
    print(f"differs from the known answer by {difference:.4f}: {'ok' if difference < 0.005 else 'WRONG'}")
    return 0 if difference < 0.005 else 1


if __name__ == "__main__":
    run_script(main)
