"""Where in a recording a saved model looked, and whether such maps can be believed.

    python gc_implementation.py                               the first test recording of each class
    python gc_implementation.py --run mine --record A00002 A00003
    python gc_implementation.py --file mine.edf more.hea      your own recordings, by the shipped model
    python gc_implementation.py --run mine --checks           the maps checked on 200 test recordings: some minutes
    python gc_implementation.py --run mine --checks --against models/mine-seed-43.keras     and held against another's

Writes figures/RUN/gradcam_{A,N,O,noise}.png (gradcam_RECORD.png for named records) and gradcam.csv, which has a row for
each picture of this model, and prints the share of heat that lies on the padding; with --checks gradcam_checks.png and
gradcam_checks.json instead. The maps are Grad-CAM's, as in the report, but those of the recipe `improved` are made by
the method that its checks favour. Figures of files are in figures/files/ without --run.
"""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import preprocessing
import reading
import runs
from recipes import CLASSES, settings
from shell import UserError, make_folders, parser, run_script, say, writing

LONGEST = 300  # s of a file that a figure can show


def main():
    flags = parser(__doc__)
    runs.add_flags(flags, models=None)
    flags.add_argument(
        "--record", nargs="+", metavar="NAME", help="test records to explain (default: one of each class)"
    )
    flags.add_argument(
        "--file",
        nargs="+",
        metavar="FILE",
        help="recordings of your own instead; by the shipped model without --model",
    )
    reading.add_flags(flags)
    flags.add_argument("--checks", action="store_true", help="check the maps instead of drawing some")
    flags.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="with --checks: a model of another seed, whose maps should be alike",
    )
    flags.add_argument("--count", type=int, default=200, help="test recordings to check them on")
    arguments = flags.parse_args()
    if bool(arguments.file) + bool(arguments.record) + arguments.checks > 1:
        flags.error("pass --record, --file or --checks, one of them")
    if arguments.against and not arguments.checks:
        flags.error("--against goes with --checks")
    if arguments.count < 2:
        flags.error("--count needs 2 recordings or more")

    if arguments.file:
        run, saved, chosen, refused = open_files(arguments, reading.told(flags, arguments))
    else:
        also = [arguments.against] if arguments.against else []
        run, models, table, _ = runs.open_run(arguments.run, arguments.model, arguments.data, arguments.labels, also)
        saved, chosen, refused = models[0], choose(table, arguments.record), []
    make_folders(run.figures)
    if arguments.checks:
        return check(models, table, arguments.count, run.figures)
    if chosen:
        draw(saved, chosen, run.figures)
    if refused:
        raise UserError("; ".join(refused))


def draw(saved, chosen, folder):
    """Draw into `folder` where a model looked in the `chosen` recordings, {part of the file name: row of the table}."""
    import pandas as pd

    rows = []
    for title, recording in chosen.items():
        path = folder / f"gradcam_{title}.png"
        of = {"picture": path.name, "fingerprint": saved.card.fingerprint}
        rows.append(explain(saved, recording, path) | of)
    table = pd.DataFrame(rows)
    with contextlib.suppress(OSError, ValueError, KeyError):  # none yet, or an earlier version's
        texts = dict.fromkeys(("record", "label", "reasons", "picture", "fingerprint"), str)
        before = pd.read_csv(folder / "gradcam.csv", dtype=texts, keep_default_na=False)
        same = (before["fingerprint"] == saved.card.fingerprint) & ~before["picture"].isin(table.picture)
        table = pd.concat([before[same], table])
    with writing(folder / "gradcam.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")
    print(
        f"wrote {folder}/gradcam.csv; on average {np.mean([row['heat_on_padding'] for row in rows]):.1%} "
        "of the heat lies on padding"
    )


def check(models, table, count, folder):
    """Check the maps of a model on `count` recordings of `table`, evenly spaced; print, draw, write what is found.

    models: [`runs.Saved`], of which a second is one whose maps are compared with those of the first.
    """
    import checks
    import heatmaps
    import plotting

    saved, other = (*models, None)[:2]
    recipe, rng = saved.card.recipe, np.random.default_rng(0)
    decisive = settings("input", "image", "conditioning", "network")
    if other and any(getattr(recipe, name) != getattr(other.card.recipe, name) for name in decisive):
        raise UserError(
            "the model that --against names sees other images or sees them otherwise; name one of this recipe"
        )
    rows = table.iloc[np.linspace(0, len(table) - 1, min(count, len(table))).astype(int)]
    say(f"checking the maps of {len(rows)} recordings")
    given = checks.subjects(saved.network, recipe, rows.signal, rows.sampling_rate)
    results = {}
    beside = other and other.network
    for name, found in checks.check(saved.network, recipe, given, heatmaps.methods(recipe), rng, beside):
        results[name] = found
        print(*checks.lines(name, found), sep="\n", flush=True)
    used, best = heatmaps.used(recipe), checks.best(results)
    failed = [name for name, passed in results[used]["passed"].items() if not passed]
    print(
        f"{len(rows)} recordings. The figures use {heatmaps.METHODS[used].title}, which "
        + (f"FAILS: {'; '.join(failed)}." if failed else "passes all checks.")
        + ("" if best == used else f" {heatmaps.METHODS[best].title} does best.")
    )
    with writing(folder / "gradcam_checks.json") as temporary:
        values = {"recordings": len(rows), "used": used, "best": best, "drawn": checks.DRAWN, "methods": results}
        values["fingerprint"] = saved.card.fingerprint
        temporary.write_text(json.dumps(values, indent=2) + "\n")
    titles = {name: heatmaps.METHODS[name].title for name in results}
    plotting.gradcam_checks(results, titles, checks.DRAWN, folder / "gradcam_checks.png")
    print(f"wrote {folder}/gradcam_checks.png and gradcam_checks.json")


def choose(table, records):
    """{part of the file name: row of `table`} for the named `records`, or else the first of each class."""
    if not records:
        first = table.drop_duplicates("label").set_index("label", drop=False)
        return {"noise" if label == "~" else label: first.loc[label] for label in CLASSES if label in first.index}
    rows = table.set_index("record", drop=False)
    unknown = [record for record in records if record not in rows.index]
    if unknown:
        raise UserError(f"{unknown[0]} is not among the recordings that the model has not seen; --file draws any")
    return {record: rows.loc[record] for record in records}


def open_files(arguments, options):
    """(`Run`, `Saved`, {part of the file name: recording as a row of a table has it}, [why others are refused]) for the
    flag --file.

    options: lead, fs and unit, as `reading.read` takes them.
    """
    run = runs.Run(arguments.run or "files")
    recordings, refused = {}, []
    for name in arguments.file:
        try:
            signal, rate, _, begin = reading.read(name, *options)
        except UserError as error:
            refused.append(str(error))
            continue
        if len(signal) / rate > LONGEST:
            refused.append(
                f"{name} lasts {len(signal) / rate:.0f} s, more than a figure shows; "
                "predict.py --html shows the heat of its windows"
            )
            continue
        title = Path(name).stem
        while title in recordings:  # of another folder
            title += "_"
        recordings[title] = SimpleNamespace(record=title, label=None, signal=signal, sampling_rate=rate, begin=begin)
    shipped = Path(__file__).parent / "pretrained/improved.keras"
    own = run.model if arguments.run else shipped
    return run, runs.load(arguments.model or own) if recordings else None, recordings, refused


def explain(saved, recording, path):
    """Draw into `path` where a model looked in a `recording`, a row of the table; return a row of gradcam.csv.

    saved: a `runs.Saved`. Of several images, the one that speaks most for the class that the vote gave is drawn. Times
    are those of its file, of which something may have been cut off before the recording begins.
    """
    import beats
    import heatmaps
    import inference
    import members
    import plotting
    import reasons

    network, recipe = saved.network, saved.card.recipe
    images, begins, ends = heatmaps.views(recording.signal, recording.sampling_rate, recipe)
    pixels = images[:]
    probabilities = inference.predict(network, pixels, batch_size=1)  # filling a batch up would take as long as sixteen
    measured = members.measure([recording.signal], [recording.sampling_rate], keep=False)
    said = {"network": preprocessing.vote(probabilities, np.zeros(len(images), int))}
    for member in members.names(saved)[1:]:
        said[member] = members.by_heartbeats(saved, member, measured)
    voted = members.joined(said, saved.card.calibration)[0]
    predicted = int(voted.argmax())
    why = reasons.explain(voted, measured.rows, [saved])["sentence"]
    plain = np.flatnonzero(np.isfinite(begins))
    best = max(plain, key=lambda place: probabilities[place, predicted])
    begin, stop, seconds = begins[best], ends[best], len(recording.signal) / recording.sampling_rate
    end = min(begin + recipe.seconds, stop)
    peaks = beats.find(recording.signal, recording.sampling_rate)["sleepecg"]
    peaks = peaks[(peaks >= begin) & (peaks < end)]
    method = heatmaps.used(recipe)
    (hot,) = heatmaps.heat(network, pixels[best : best + 1], [predicted], recipe, method, [peaks - begin])
    padding = heatmaps.share_on_padding(hot, stop - begin, recipe)
    if not hot.any():
        say(f"{recording.record}: the map is empty: nothing in it speaks for {CLASSES[predicted]}")
    part = f"; part of {seconds:.0f} s" if len(plain) > 1 else ""
    times = np.arange(len(recording.signal)) / recording.sampling_rate
    shown = (times >= begin) & (times < end)
    true = f"true class {recording.label}, " if recording.label else ""
    title = (
        f"{recording.record}: {true}predicted {CLASSES[predicted]} ({voted.max():.0%}), "
        f"{padding:.0%} of the heat on padding{part}"
    )
    cut = getattr(recording, "begin", 0.0)
    picture = preprocessing.picture(pixels[best], recipe, cut + begin)
    trace = cut + times[shown], recording.signal[shown], cut + peaks
    if method == "gradcam":
        plotting.gradcam(picture, hot, trace, cut + stop if recipe.padding != "wrap" else np.inf, title, why, path)
    else:
        plotting.heat_on_trace(picture, hot, trace, heatmaps.METHODS[method].title, title, why, path)
    print(f"{path}: {true}{padding:.1%} of the heat on padding; {why}")
    return {
        "record": recording.record,
        "label": recording.label,
        "predicted": CLASSES[predicted],
        "seconds": seconds,
        "heat_on_padding": padding,
        "reasons": why,
    }


if __name__ == "__main__":
    run_script(main)
