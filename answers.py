"""Files → rows: what saved models say of each recording, with its doubts, windows, episodes, reasons and page."""

import dataclasses
from collections import namedtuple

import inference
import quality
import reading
import runs
from recipes import CLASSES
from shell import UserError, printable, progress, shortened

CHUNK, SAMPLES = 64, 10_000_000  # recordings, and about their samples, in memory at a time

# What is asked for. options: lead, fs and unit, as `reading.read` takes them; confidence: the probability below which a
# class is uncertain; explained: whether to add the `reasons`; windowed: the `windows`, and the `fibrillation` that
# recordings from 5 minutes on have always; html: the folder of their pages, which need reasons, or None.
Wanted = namedtuple("Wanted", "options confidence explained windowed html", defaults=[False, False, None])


def load(paths, html=None):
    """[`runs.Saved`] of saved models. Whatever a model was trained to read, here the whole recording counts.

    html: whether there will be pages, whose heat needs the network by Keras where that is installed.
    """
    for path in paths:
        runs.read_card(path)  # before the first one is loaded, which takes seconds
    light = True
    if html:
        import pages

        light = not pages.has_heat()
    models = [runs.load(path, light) for path in paths]
    return [
        saved._replace(card=saved.card._replace(recipe=dataclasses.replace(saved.card.recipe, vote=True)))
        for saved in models
    ]


def by_onnx(models):
    """Whether all `models`, [`runs.Saved`], answer without Keras."""
    return all(isinstance(saved.network, inference.Onnx) for saved in models)


def classify(paths, models, wanted):
    """Yield a dict for each of `paths`: file, class, uncertain, probabilities, seconds, doubts and notes, and what else
    is `Wanted`; or file and error.

    models: [`runs.Saved`], whose probabilities are averaged.
    """
    rows, waiting = [], []  # waiting: (row, recording) of those that are read and not yet classified
    for path in paths:
        row = {"file": str(path)}
        rows.append(row)
        try:
            waiting.append((row, reading.read(path, *wanted.options)))
        except UserError as error:
            row["error"] = shortened(str(error))
        if len(waiting) == CHUNK or sum(len(recording.signal) for _, recording in waiting) > SAMPLES:
            _answer(waiting, models, wanted)
            yield from rows
            rows.clear()
    if waiting:
        _answer(waiting, models, wanted)
    yield from rows


def _answer(waiting, models, wanted):
    """Write what the models say of each recording into its row, for all (row, recording) in `waiting`, and empty it."""
    import episodes

    short = [pair for pair in waiting if not episodes.is_long(pair[1])]
    answers = _together([recording for _, recording in short], models) if short else []
    for pair, said in zip(short, answers, strict=True):
        _complete(*pair, said, _in_windows(*pair, models, wanted), models, wanted)
    for row, recording in waiting:
        if episodes.is_long(recording):
            windows = _in_windows(row, recording, models, wanted)
            _complete(row, recording, episodes.overall(windows), windows, models, wanted)
    waiting.clear()


def _together(recordings, models):
    """[(probabilities (4,), measurements of its heartbeats (windows, measurements))] of some recordings."""
    import members

    signals, rates, *_ = zip(*recordings, strict=True)
    measured = members.measure(signals, rates, keep=False)
    answers = members.classify(models, signals, rates, False, measured)
    return [(probabilities, measured.rows[measured.owners == place]) for place, probabilities in enumerate(answers)]


def _in_windows(row, recording, models, wanted):
    """The `episodes.Windows` of a recording, or None where there is only one and nobody asked for it."""
    import episodes

    count = len(episodes.cut(len(recording.signal), recording.sampling_rate))
    if count == 1 and not wanted.windowed:
        return None
    with progress(count, f"windows of {printable(row['file'])}", "window") as bar:
        windows = episodes.classify(models, recording.signal, recording.sampling_rate, bar)
    return windows._replace(begins=windows.begins + recording.begin, ends=windows.ends + recording.begin)


def _complete(row, recording, said, windows, models, wanted):
    """Write what there is to say of a recording into its `row`, and its page.

    said: (probabilities (4,), measurements) of the whole; windows: its `episodes.Windows` or None.
    """
    import beats
    import episodes

    probabilities, rows = said
    rate = models[0].card.recipe.sampling_rate
    notes = list(recording.notes)
    if recording.sampling_rate != rate:
        notes.append(f"resampled from {recording.sampling_rate:g} to {rate} Hz")
    if not all(saved.card.scores for saved in models):
        notes.append("the training of the model is not finished, so it will answer otherwise")
    usable = quality.seconds(recording.signal, recording.sampling_rate)
    doubts = quality.doubts(probabilities, beats.typical(rows), usable, wanted.confidence)
    row |= {
        "class": CLASSES[probabilities.argmax()],
        "uncertain": bool(doubts),
        "probabilities": {name: round(float(p), 4) for name, p in zip(CLASSES, probabilities, strict=True)},
        "seconds": round(len(recording.signal) / recording.sampling_rate, 2),
        "doubts": doubts,
        "notes": [shortened(note) for note in notes],
    }
    if windows:
        _add_windows(row, windows, wanted, episodes.is_long(recording))
    if wanted.explained or wanted.html:
        import reasons

        row["reasons"] = reasons.explain(probabilities, rows, models)
    if wanted.html:
        import pages

        row["page"] = pages.recording(wanted.html, row, recording, windows, models, wanted.confidence)


def _add_windows(row, windows, wanted, long):
    """Write into a `row` what its `episodes.Windows` tell: where they disagree, the episodes, and each if wanted."""
    import episodes

    differ = episodes.disagreement(windows)
    row["notes"] += [differ] if differ else []
    row["doubts"] += episodes.doubts(windows, row["class"])
    row["uncertain"] = bool(row["doubts"])
    if wanted.windowed or long:
        row["fibrillation"] = episodes.summary(windows)
    if wanted.windowed:
        row["windows"] = episodes.table(windows, wanted.confidence)
