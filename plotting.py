"""Every figure, in one style. The functions take plain arrays and tables, and the path to write.

python plotting.py        draw the report's own confusion matrix as figures/report_confusion_matrix.png
"""

import itertools
import textwrap

import cv2
import matplotlib

matplotlib.use("Agg")  # the scripts also run where there is no display

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from recipes import CLASSES, COLOURS, MEMBERS, NAMES
from scoring import best_row, share_interval
from shell import parser, run_script, writing

sns.set_theme(
    style="whitegrid",
    rc={
        "figure.dpi": 120,
        "savefig.dpi": 120,
        "axes.titleweight": "bold",
        "axes.titlesize": 12,
        "axes.edgecolor": "0.6",
        "grid.color": "0.9",
    },
)


def figure(width=7.0, height=4.5, **grid):
    """A figure (width × height inches) and its axes; unlike pyplot's it is freed with its last reference."""
    drawing = Figure((width, height), layout="constrained")
    return drawing, drawing.subplots(**grid)


def save(drawing, path):
    """Write a figure whole, and return its path."""
    with writing(path) as temporary:
        drawing.savefig(temporary)
    return path


def class_distribution(labels, path):
    """Figure 1: recordings per class. `labels`: class names, shape (n,)."""
    drawing, axes = figure()
    counts = [int(np.sum(np.asarray(labels) == name)) for name in CLASSES]
    bars = axes.bar([NAMES[name] for name in CLASSES], counts, color=COLOURS.values())
    total = max(sum(counts), 1)
    axes.bar_label(bars, [f"{count:,}\n{count / total:.1%}" for count in counts], padding=2)
    axes.set(title="Class distribution", ylabel="Recordings", ylim=(0, max(counts) * 1.18))
    axes.grid(axis="x", visible=False)
    return save(drawing, path)


def sequence_length_distribution(seconds, path):
    """Figure 2: recordings per 10 s of duration, those of 60 s and over in the last bin. `seconds`: shape (n,)."""
    drawing, axes = figure()
    counts, _ = np.histogram(seconds, [*range(0, 61, 10), max(70, np.max(seconds))])
    names = [f"{low}-{low + 10}" for low in range(0, 60, 10)] + ["60 and over"]
    bars = axes.bar(names, counts, width=0.95, color="C0")
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=2)
    axes.set(
        title="Sequence length distribution",
        xlabel="Duration (s)",
        ylabel="Recordings",
        ylim=(0, max(counts.max(), 1) * 1.12),
    )
    axes.grid(axis="x", visible=False)
    return save(drawing, path)


def example_recordings(examples, path):
    """One recording per class: its trace over its spectrogram, on one time axis.

    examples: {class: (record, signal (samples,) in 1/1000 mV, rate in Hz, `preprocessing.Picture`)}.
    """
    drawing, axes = figure(
        13, 8.5, nrows=4, ncols=2, sharex="col", gridspec_kw={"height_ratios": [1, 1.2] * 2}, squeeze=False
    )
    for position, (name, (record, signal, rate, picture)) in enumerate(examples.items()):
        trace, spectrum = axes[2 * (position // 2) :, position % 2][:2]
        trace.plot(np.arange(len(signal)) / rate, signal / 1000, linewidth=0.6, color=COLOURS[name])
        trace.set(title=f"{NAMES[name]}: {record}", ylabel="Voltage (mV)")
        colour = _spectrogram(spectrum, picture)
        drawing.colorbar(colour, ax=spectrum, label=picture.unit, pad=0.01)
        spectrum.set_ylim(top=50)
        spectrum.set_xlim(0, picture.times[-1])
        if position // 2 == 1 or position + 2 >= len(examples):
            spectrum.set_xlabel("Time (s)")
    return save(drawing, path)


def traces(signals, rate, path, alike=True):
    """Signals one below the other on one time axis, alike: and one scale. `signals`: {name: (samples,) in 1/1000 mV};
    rate: Hz.
    """
    drawing, axes = figure(10, 1.4 * len(signals), nrows=len(signals), sharex=True, sharey=alike)
    axes = np.atleast_1d(axes)
    for axis, (name, signal) in zip(axes, signals.items(), strict=True):
        axis.plot(np.arange(len(signal)) / rate, signal / 1000, linewidth=0.7, color=COLOURS["N"])
        axis.set_title(name, loc="left", fontsize=9)
        axis.set_ylabel("mV")
    axes[-1].set(xlabel="Time (s)", xlim=(0, max(map(len, signals.values())) / rate))
    return save(drawing, path)


def thumbnail(signal, rate, seconds=10, width=400, height=80):
    """A small picture, RGB (height, width, 3), of the first `seconds` of a signal of `rate` Hz; spikes are cut."""
    signal = np.asarray(signal[: int(seconds * rate)], float)
    low, high = np.quantile(signal, (0.01, 0.99))
    x = np.arange(len(signal)) / (seconds * rate) * (width - 1)
    y = np.clip((high - signal) / max(high - low, 1), -0.25, 1.25) * height / 1.5 + height / 6
    picture = np.full((height, width, 3), 255, np.uint8)
    cv2.polylines(picture, [np.stack([x, y], 1).round().astype(np.int32)], False, (1, 60, 120), 1, cv2.LINE_AA)
    return picture


def _spectrogram(axes, picture, values=None, **options):
    """Draw a `preprocessing.Picture`, or other `values` (frequencies, frames) on its axes, in Hz and seconds."""
    values, options = picture.values if values is None else values, {"cmap": "magma"} | options
    drawn = axes.pcolormesh(picture.times, picture.frequencies, values, shading="nearest", rasterized=True, **options)
    if picture.frequencies[0] > 0:  # a scalogram's
        axes.set_yscale("log")
    axes.set(ylabel="Frequency (Hz)")
    axes.grid(visible=False)
    return drawn


def training_f1(card, path):
    """Figure 4: validation F1 after each epoch of a `runs.Card`, the one that is kept, or trained to again, marked."""
    history = pd.DataFrame(card.history)
    drawing, axes = figure()
    for place, name in enumerate(CLASSES):
        axes.plot(
            history.epoch,
            history[f"F1_{place}"],
            color=COLOURS[name],
            linewidth=0.9,
            alpha=0.7,
            label=f"F1 {name}",
        )
    axes.plot(history.epoch, history.avg_F1_score, color="black", linewidth=1.8, label="4-class average")
    best = best_row(card.history, card.recipe.best_epoch)
    what = "Validation F1, first training" if card.recipe.refit else "Validation F1"
    told = {"f1": "best {:.4f} in epoch {}", "loss": "{:.4f} at the least loss, epoch {}"}[card.recipe.best_epoch]
    axes.plot(best["epoch"], best["avg_F1_score"], "o", color="black")
    axes.set(
        title=f"{what} ({told.format(best['avg_F1_score'], best['epoch'])})",
        xlabel="Epoch",
        ylabel="F1 score",
        ylim=(0, 1),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(ncols=5, loc="upper center", fontsize=9)
    return save(drawing, path)


def bars_beside_report(names, ours, intervals, report, title, path):
    """Figures 5 and 6: our figures and their `intervals` (n, 2), NaN where there is none, beside the report's."""
    drawing, axes = figure(3 + 1.15 * len(names))
    places = np.arange(len(names))
    whiskers = np.abs(np.asarray(ours) - np.transpose(intervals))
    label = "this run and its\n95 % interval"
    mine = axes.bar(places - 0.2, ours, 0.38, yerr=whiskers, ecolor="0.25", capsize=3, color="C0", label=label)
    theirs = axes.bar(places + 0.2, report, 0.38, color="0.75", label="the report")
    axes.bar_label(mine, [f"{value:.2f}" for value in ours], padding=3, fontsize=10)
    axes.bar_label(theirs, [f"{value:.2f}" for value in report], padding=3, fontsize=10)
    axes.set(title=title, ylim=(0, 1.1), yticks=np.linspace(0, 1, 6), ylabel="Score")
    axes.set_xticks(places, names)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return save(drawing, path)


def multi_class_roc(true, probabilities, path):
    """Figure 7: one-vs-rest ROC curve of each class and their macro average. `true` (n,), `probabilities` (n, 4)."""
    drawing, axes = figure(6.2, 5.6)
    grid = np.linspace(0, 1, 501)
    curves = []
    for place, name in enumerate(CLASSES):
        if 0 < np.sum(true == place) < len(true):
            false_rate, true_rate, _ = roc_curve(true == place, probabilities[:, place])
            curves.append(np.interp(grid, false_rate, true_rate))
            axes.plot(
                false_rate,
                true_rate,
                color=COLOURS[name],
                label=f"{NAMES[name]}: {auc(false_rate, true_rate):.2f}",
            )
    mean = np.mean(curves, axis=0)
    mean[0] = 0
    axes.plot(grid, mean, color="black", linestyle="--", label=f"Macro average: {auc(grid, mean):.2f}")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="No skill: 0.50")
    axes.set(
        title="ROC curves, one class against the rest",
        xlabel="False positive rate",
        ylabel="True positive rate",
        xlim=(0, 1),
        ylim=(0, 1.01),
        aspect="equal",
    )
    axes.legend(loc="lower right", title="Area under the curve", fontsize=9)
    return save(drawing, path)


def precision_recall(true, probabilities, path):
    """One-vs-rest precision-recall curve of each class, with its average precision and, dotted, the class's share.

    true: indices of classes (n,); probabilities: (n, 4).
    """
    drawing, axes = figure(6.2, 6.2)
    for place, name in enumerate(CLASSES):
        if 0 < np.sum(true == place) < len(true):
            precision, recall, _ = precision_recall_curve(true == place, probabilities[:, place])
            area = average_precision_score(true == place, probabilities[:, place])
            axes.step(recall, precision, where="post", color=COLOURS[name], label=f"{NAMES[name]}: {area:.2f}")
            axes.axhline(np.mean(true == place), color=COLOURS[name], linewidth=1, linestyle=":")
    axes.plot([], [], color="0.4", linewidth=1, linestyle=":", label="No skill: the class's share")
    axes.set(
        title="Precision-recall, one class against the rest",
        xlabel="Recall (sensitivity)",
        ylabel="Precision (positive predictive value)",
        xlim=(0, 1),
        ylim=(0, 1.01),
        aspect="equal",
    )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.1), title="Average precision", fontsize=9)
    return save(drawing, path)


def reliability(true, probabilities, path, bins=10):
    """Reliability diagram: accuracy of the most probable class over its probability, and how often it is given.

    true: indices of classes (n,); probabilities: (n, 4). Whiskers are exact 95 % intervals of a share.
    """
    drawing = Figure((6.2, 6.2), layout="constrained")
    axes, below = drawing.subplots(2, sharex=True, height_ratios=[3, 1])
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    filled = np.unique(bin_of)
    counts, hits = (np.bincount(bin_of, weights, bins)[filled].astype(int) for weights in (None, right))
    means = np.bincount(bin_of, confidence, bins)[filled] / counts
    limits = [share_interval(int(hit), int(count)) for hit, count in zip(hits, counts, strict=True)]
    shares = hits / counts
    whiskers = np.abs(shares - np.transpose(limits))
    axes.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle="--", label="as sure as right")
    axes.errorbar(
        means,
        shares,
        whiskers,
        marker="o",
        color="C0",
        ecolor="0.25",
        capsize=3,
        label="this run and its 95 % interval",
    )
    axes.set(title="Reliability of the class named", ylabel="Share that is right", xlim=(0.2, 1.01), ylim=(0, 1.01))
    axes.legend(loc="upper left", fontsize=9)
    bars = below.bar((filled + 0.5) / bins, counts, 0.94 / bins, color="C0")
    below.bar_label(bars, [f"{count:,}" for count in counts], padding=2, fontsize=9)
    below.set(xlabel="Probability of the class named", ylabel="Recordings", ylim=(0, counts.max() * 1.25))
    below.grid(axis="x", visible=False)
    return save(drawing, path)


def groups(measured, path):
    """Accuracy and the challenge's F1, with 95 % intervals, in groups of 20 recordings or more, whose names tell it.

    measured: {what they are grouped by: {group: scores}}, as `benchmark.by_group` makes it.
    """
    lines = [
        (f"{title}  ({row['recordings']:,})", row, what if place == 0 else "")
        for what, rows in measured.items()
        for place, (title, row) in enumerate(each for each in rows.items() if each[1]["recordings"] >= 20)
    ]
    if not lines:
        return None
    drawing, axes = figure(9, 1.4 + 0.34 * len(lines))
    for key, colour, shift, label in (
        ("challenge_F1", "black", -0.13, "F1, challenge (N, A, O)"),
        ("accuracy", "C0", 0.13, "Accuracy"),
    ):
        known = [(place, row) for place, (_, row, _) in enumerate(lines) if row[key] is not None]
        if not known:
            continue
        places, values = np.array([place for place, _ in known]), np.array([row[key] for _, row in known])
        limits = np.transpose([row[f"{key}_interval"] for _, row in known])
        axes.errorbar(
            values, places + shift, xerr=np.abs(values - limits), fmt="o", color=colour, capsize=3, label=label
        )
    for place, (_, _, what) in enumerate(lines):
        if what:
            axes.text(1.01, place, f"by {what}", transform=axes.get_yaxis_transform(), va="center", fontsize=10)
            if place:
                axes.axhline(place - 0.5, color="0.6", linewidth=1)
    axes.set_yticks(range(len(lines)), [title for title, _, _ in lines])
    axes.invert_yaxis()
    axes.set(title="Scores in groups of recordings, with their number", xlabel="Score", xlim=(None, 1.01))
    axes.legend(loc="lower left", bbox_to_anchor=(1.01, 0), fontsize=9)
    return save(drawing, path)


def confusion_matrix(matrix, title, path=None):
    """Figure 8: counts (4, 4) and the share of each true class. Returns the path, or the figure without one."""
    drawing, axes = figure(6.2, 5.2)
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    text = [
        [f"{count:,}\n{share:.0%}" for count, share in zip(*rows, strict=True)]
        for rows in zip(matrix, shares, strict=True)
    ]
    sns.heatmap(
        shares,
        annot=text,
        fmt="",
        cmap="Blues",
        vmin=0,
        vmax=1,
        ax=axes,
        square=True,
        linewidths=0.5,
        xticklabels=CLASSES,
        yticklabels=CLASSES,
        cbar_kws={"label": "Share of the true class", "format": PercentFormatter(1)},
    )
    axes.set(title=title, xlabel="Predicted class", ylabel="True class")
    axes.tick_params(axis="y", rotation=0)
    return save(drawing, path) if path else drawing


def robustness(rows, path):
    """The challenge's F1 on recordings that were changed, all members together and each alone, as dots on a line each.

    rows: {change: {members: scores}}, of which the first is of the untouched recordings.
    """
    drawing, axes = figure(8, 1.2 + 0.28 * len(rows))
    names, voices = list(rows), list(next(iter(rows.values())))
    styles = ("o", "black"), *zip("Ds^", (COLOURS[name] for name in "NOA"), strict=True)
    for some, (shape, colour) in reversed(list(zip(voices, styles, strict=False))):
        whole = some == voices[0]
        axes.plot(
            [rows[name][some]["challenge_F1"] for name in names],
            names,
            shape,
            color=colour,
            markersize=8 if whole else 5,
            label="the model" if whole else f"its {MEMBERS.get(some, some)} alone",
        )
    axes.axvline(rows[names[0]][voices[0]]["challenge_F1"], color="0.4", linewidth=1, zorder=0)
    axes.invert_yaxis()
    axes.set(title="Recordings as other devices make them, test split", xlabel="F1, challenge (N, A, O)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
    return save(drawing, path)


def gradcam(picture, heat, trace, duration, title, reasons, path):
    """Figures 9 to 12: the trace with its R peaks over the image, the heat map and their overlay, padding marked.

    picture: a `preprocessing.Picture`; heat: the shape of its values, 0 to 1; trace: (times in s, voltages in 1/1000
    mV, times of the R peaks in s); duration: seconds recorded; reasons: a sentence, written over the trace.
    """
    drawing = Figure((14, 6), layout="constrained")
    axes = drawing.subplot_mosaic([["trace"] * 3, ["image", "heat", "overlay"]], height_ratios=[1, 2.2])
    last, top = picture.times[-1], picture.frequencies[-1]
    times, voltages, peaks = trace
    axes["trace"].plot(times, voltages / 1000, linewidth=0.7, color="black")
    heights = np.interp(peaks, times, voltages / 1000)
    axes["trace"].plot(peaks, heights, "v", color=COLOURS["A"], markersize=4)
    axes["trace"].set(ylabel="Voltage (mV)", xlim=(times[0], last))
    axes["trace"].set_title(textwrap.fill(f"{reasons}; {len(peaks)} R peaks", 150), fontsize=10, fontweight="normal")
    colour = _spectrogram(axes["image"], picture, cmap="gray")
    drawing.colorbar(colour, ax=axes["image"], label=picture.unit, pad=0.02)
    colour = _spectrogram(axes["heat"], picture, heat, cmap="inferno", vmin=0, vmax=1)
    drawing.colorbar(colour, ax=axes["heat"], label="Heat (share of maximum)", pad=0.02)
    _spectrogram(axes["overlay"], picture, overlay(picture.values, heat))
    titles = {"image": picture.title, "heat": "Grad-CAM", "overlay": "Overlay"}
    for place, name in titles.items():
        axes[place].set(title=name, xlabel="Time (s)", ylabel="Frequency (Hz)" if place == "image" else "")
        if duration < last:
            axes[place].axvline(duration, color="cyan", linewidth=1.2, linestyle="--")
            late = duration > 0.8 * last  # no room to the right
            text, side = ("padding → ", "right") if late else (" padding", "left")
            axes[place].text(duration, top * 0.97, text, color="cyan", va="top", ha=side, fontsize=9)
    drawing.suptitle(title, fontweight="bold")
    return save(drawing, path)


def heat_on_trace(picture, heat, trace, method, title, reasons, path):
    """The trace in rows of 10 s over its heat, as cardiologists read it, and the image it was read from.

    picture, heat, trace, title, reasons: as `gradcam` takes them; method: what the heat was made by.
    """
    times, voltages, peaks = trace
    voltages = voltages / 1000
    rows = max(int(np.ceil((times[-1] - times[0]) / 10)), 1)
    drawing = Figure((14, 2.2 + 1.7 * rows), layout="constrained")
    *strips, below = drawing.subplots(rows + 1, height_ratios=[1.0] * rows + [1.1])
    low, high = np.quantile(voltages, (0.001, 0.999)) + np.array([-0.25, 0.35])
    heights = np.clip(np.interp(peaks, times, voltages) + 0.08, low, high - 0.1)
    for row, axes in enumerate(strips):
        begin = times[0] + 10 * row
        shade = axes.pcolormesh(
            picture.times,
            [low, high],
            np.tile(heat.mean(0), (2, 1)),
            cmap="Oranges",
            vmin=0,
            vmax=1.3,
            shading="nearest",
        )
        axes.plot(times, voltages, linewidth=0.9, color="black")
        axes.plot(peaks, heights, "v", color=COLOURS["N"], markersize=4)
        axes.set(xlim=(begin, begin + 10), ylim=(low, high), ylabel="mV")
        axes.set_xticks(np.arange(np.ceil(begin), begin + 10.001))
        axes.grid(visible=False)
    strips[0].set_title(textwrap.fill(f"{reasons}; {len(peaks)} R peaks", 150), fontsize=10, fontweight="normal")
    drawing.colorbar(
        shade,
        ax=strips,
        label=f"{method}:\nshare of the largest heat",
        pad=0.01,
        boundaries=np.linspace(0, 1, 101),
        ticks=[0, 0.5, 1],
    )
    colour = _spectrogram(below, picture, cmap="gray")
    drawing.colorbar(colour, ax=below, label=picture.unit, pad=0.01)
    below.set(xlabel="Time (s)", xlim=(times[0], times[0] + 10 * rows))
    drawing.suptitle(title, fontweight="bold")
    return save(drawing, path)


def gradcam_checks(results, titles, drawn, path):
    """What `checks.check` finds of each method: random weights, deletion, insertion, and where the heat lies.

    results: {method: what it found}; titles: {method: title}; drawn: shares of the frames deleted or inserted.
    """
    drawing, axes = figure(13, 8, nrows=2, ncols=2)
    colours = dict(zip(results, sns.color_palette("colorblind"), strict=False))
    for name, found in results.items():
        line = {"color": colours[name], "label": titles[name], "marker": "o", "markersize": 4}
        axes[0, 0].plot(found["randomisation"]["randomised"], found["randomisation"]["correlation"], **line)
        for place, kind in enumerate(("deletion", "insertion")):
            axes[place, 1 - place].plot(drawn, found["curves"][kind]["map"]["curve"], **line)
    controls = {"random": ("frames at random", "--"), "centre": ("the centre first", ":")}
    for place, kind in enumerate(("deletion", "insertion")):
        curves = next(iter(results.values()))["curves"][kind]
        for order, (title, style) in controls.items():
            axes[place, 1 - place].plot(drawn, curves[order]["curve"], style, color="0.3", label=title)
    axes[0, 0].axhline(0, color="0.6", linewidth=1)
    axes[0, 0].set(
        title="Random weights: the map must change",
        xlabel="Share of the layers made random, from the top",
        ylabel="Rank correlation with the map",
        ylim=(-0.3, 1.05),
    )
    axes[0, 1].set(
        title="Deletion: the lower the better", xlabel="Share of the frames deleted", ylabel="Probability", ylim=(0, 1)
    )
    axes[1, 0].set(
        title="Insertion: the higher the better", xlabel="Share of the frames kept", ylabel="Probability", ylim=(0, 1)
    )
    _heat_places(axes[1, 1], results, colours)
    axes[0, 1].legend(fontsize=9)
    return save(drawing, path)


def _heat_places(axes, results, colours):
    """Bars of how much heat lies on padding, edges and early beats, of what chance would lay there."""
    places = list(dict.fromkeys(place for found in results.values() for place in found["shares"]))
    width = 0.8 / len(results)
    for row, (name, found) in enumerate(results.items()):
        there = [(place, found["shares"][title]) for place, title in enumerate(places) if title in found["shares"]]
        at, ratios = np.array([place for place, _ in there]), np.array([share["ratio"] for _, share in there])
        whiskers = np.abs(ratios - np.transpose([share["ratio_interval"] for _, share in there]))
        axes.bar(
            at - 0.4 + (row + 0.5) * width,
            ratios,
            width * 0.95,
            yerr=whiskers,
            color=colours[name],
            ecolor="0.25",
            capsize=2,
        )
    axes.axhline(1, color="0.3", linewidth=1, linestyle="--")
    axes.set(title="Where the heat lies", ylabel="Times what chance lays there")
    axes.set_xticks(range(len(places)), places)
    axes.grid(axis="x", visible=False)


def overlay(image, heat, strength=0.45):
    """The heat map's colours laid over the grey image: RGB uint8 of shape (frequencies, frames, 3)."""
    image = np.nan_to_num(image, nan=np.nanmin(image))
    spread = np.ptp(image)
    grey = np.uint8(255 * (image - image.min()) / (spread if spread else 1))
    colours = cv2.applyColorMap(np.uint8(255 * np.clip(heat, 0, 1)), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(
        cv2.addWeighted(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), 1 - strength, colours, strength, 0),
        cv2.COLOR_BGR2RGB,
    )


def sweep_top_runs(table, parameters, score, path, top=15, lowest=False):
    """Figure 3: parallel coordinates of a sweep, the best `top` trials coloured by their score over all others in grey.

    table: one row a trial; parameters: {its columns that were searched: whether on a logarithmic scale}; score: the
    column of the score, drawn last; lowest: whether a low one is good.
    """
    table = table.sort_values(score, ascending=not lowest)
    columns = {**parameters, score: False}
    places, ticks = zip(*(_coordinate(table[name], logarithmic) for name, logarithmic in columns.items()), strict=True)
    # Trials with the same choice are spread a little, so that lines on one tick can be followed.
    spread = np.random.default_rng(0).uniform(-0.03, 0.03, (len(table), len(columns)))
    heights = np.column_stack(places) + spread * [_are_choices(table[column]) for column in columns]

    drawing, axes = figure(max(11, 1.9 * len(columns)), 5.5)
    shown = table[score].iloc[-top:]
    scale = Normalize(shown.min(), shown.max())
    colours = matplotlib.colormaps["viridis_r" if lowest else "viridis"]
    smooth = np.linspace(0, 1, 30)
    ease = smooth**2 * (3 - 2 * smooth)
    for rank, line in enumerate(heights):
        x = np.concatenate([position + smooth for position in range(len(columns) - 1)])
        y = np.concatenate([left + (right - left) * ease for left, right in itertools.pairwise(line)])
        best = rank >= len(heights) - top
        colour = colours(scale(table[score].iloc[rank])) if best else "0.85"
        axes.plot(x, y, color=colour, linewidth=1.8 if best else 0.8, zorder=2 if best else 1)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    for position, of_column in enumerate(ticks):
        axes.axvline(position, color="0.3", linewidth=1, zorder=3)
        for height, text in of_column:
            axes.text(position + 0.02, height, text, fontsize=9, va="center", zorder=4, bbox=box)
    title = f"The best {min(top, len(table))} of {len(table)} sweep trials"
    axes.set(title=title, xlim=(-0.05, len(columns) - 0.75), ylim=(-0.05, 1.05), yticks=[])
    axes.set_xticks(range(len(columns)), [_title(column) for column in columns])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    drawing.colorbar(ScalarMappable(scale, colours), ax=axes, label=_title(score), pad=0.01)
    return save(drawing, path)


def _are_choices(values):
    """Whether the values of a parameter are drawn as names at equal distances: texts, or a few whole numbers."""
    return values.dtype.kind != "f" and (values.dtype.kind not in "iu" or values.nunique() <= 8)


def _coordinate(values, logarithmic=False):
    """(heights (n,) from 0 to 1, [(height, text)] of the ticks) of a column of a parallel-coordinates plot."""
    if _are_choices(values):
        choices = sorted(values.unique())
        places = np.linspace(0.06, 0.94, len(choices)) if len(choices) > 1 else [0.5]
        ticks = list(zip(places, map(str, choices), strict=True))
        return values.map(dict(zip(choices, places, strict=True))).to_numpy(float), ticks
    low, high = values.min(), values.max()
    marks = (np.geomspace if logarithmic else np.linspace)(low, high, 5)
    marks = marks.round() if values.dtype.kind != "f" else marks

    def heights(numbers):
        if logarithmic:
            return np.log(numbers / low) / (np.log(high / low) or 1)
        return (numbers - low) / ((high - low) or 1)

    ticks = [(height, f"{mark:.3g}") for height, mark in zip(heights(marks), marks, strict=True)]
    return heights(values.to_numpy(float)), ticks


SCORE_NAMES = {
    "best_avg_F1_score": "F1, 4-class average",
    "best_challenge_F1": "F1, challenge (N, A, O)",
    "best_val_loss": "Validation loss",
}


def _title(column):
    return SCORE_NAMES.get(column, column.replace("_", " "))


def _forest(table, parameters, score):
    """(inputs, a column for each number and each named choice; a random forest that tells the `score` from them)."""
    inputs = pd.get_dummies(table[list(parameters)], prefix_sep=" = ", dtype=float)
    return inputs, RandomForestRegressor(200, random_state=0).fit(inputs, table[score])


def sweep_importance(table, parameters, score, path):
    """Each parameter's importance to `score` in a random forest, and its linear correlation, as W&B reads them.

    A parameter with named choices has a row per choice. `table`, `parameters`, `score`: as in `sweep_top_runs`.
    """
    inputs, forest = _forest(table, parameters, score)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(inputs.corrwith(table[score]).to_numpy())
    order = np.argsort(forest.feature_importances_)
    names = [inputs.columns[place].replace("_", " ") for place in order]
    drawing, axes = figure(10, 1.4 + 0.36 * len(names), ncols=2, sharey=True)
    axes[0].barh(names, forest.feature_importances_[order], color="C0")
    axes[0].set(title="Importance (random forest)", xlabel="Share of the explained variance", xlim=(0, None))
    axes[1].barh(
        names, correlation[order], color=[COLOURS["O"] if value > 0 else COLOURS["A"] for value in correlation[order]]
    )
    name = "loss" if score == "best_val_loss" else "F1"
    axes[1].set(title=f"Correlation with the {name}", xlabel="Pearson's r", xlim=(-1, 1), xticks=[-1, -0.5, 0, 0.5, 1])
    for axis in axes:
        axis.grid(axis="y", visible=False)
    return save(drawing, path)


def sweep_progress(table, score, path, lowest=False):
    """The best score after each trial, and the scores over what a trial costs, with those that none beats in both.

    table: one row a trial with its state, its seconds and its `score`, in the order of their beginning; lowest: whether
    a low score is good.
    """
    drawing, axes = figure(11, 4.5, ncols=2, sharey=True)
    trials = np.arange(1, len(table) + 1)
    stopped = (table.state == "pruned").to_numpy()
    values, seconds = table[score].to_numpy(float), table.seconds.to_numpy(float)
    so_far = (np.fmin if lowest else np.fmax).accumulate(np.where(stopped, np.nan, values))
    axes[0].step(trials, so_far, where="post", color="black", label="the best so far")
    for axis, x in zip(axes, (trials, seconds), strict=True):
        axis.plot(x[~stopped], values[~stopped], "o", color="C0", alpha=0.6, markersize=5, label="a trial")
        if stopped.any():
            axis.plot(x[stopped], values[stopped], "x", color="0.5", markersize=5, label="a trial stopped early")
    order = [place for place in np.argsort(seconds, kind="stable") if not stopped[place]]
    ahead = (np.minimum if lowest else np.maximum).accumulate(values[order])
    front = np.r_[True, ahead[1:] != ahead[:-1]]
    axes[1].step(
        seconds[order][front],
        ahead[front],
        where="post",
        color=COLOURS["A"],
        marker="o",
        label="better than all cheaper ones",
    )
    axes[0].set(title="The best so far", xlabel="Trials made", ylabel=_title(score))
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1].set(title="Score and cost", xlabel="Seconds a trial")
    for axis in axes:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9)
    return save(drawing, path)


def sweep_slices(table, parameters, score, path):
    """The score against each parameter; all as `sweep_top_runs` takes it, with the state of each trial.

    The index of `table` tells in which order they began.
    """
    columns = min(4, len(parameters))
    lines = -(-len(parameters) // columns)
    drawing, axes = figure(3.1 * columns + 0.8, 2.9 * lines, nrows=lines, ncols=columns, sharey=True, squeeze=False)
    trials = table.index.to_series().rank().to_numpy() - 1  # as they are numbered on this machine, from 0
    stopped = (table.state == "pruned").to_numpy()
    for axis, (name, logarithmic) in itertools.zip_longest(axes.flat, parameters.items(), fillvalue=(None, None)):
        if name is None:
            axis.set_visible(False)
            continue
        _scale(axis, "x", table[name], logarithmic)
        places, colours = _spread(table[name]), {"cmap": "Blues", "vmin": 0, "vmax": max(trials.max(), 1)}
        for marker, some in (("o", ~stopped), ("X", stopped)):
            drawn = axis.scatter(
                places[some], table[score][some], c=trials[some], marker=marker, edgecolors="0.5", s=26, **colours
            )
        axis.set_xlabel(_title(name))
    for line in axes:
        line[0].set_ylabel(_title(score))
    label = "Trial (a cross: stopped early)" if stopped.any() else "Trial"
    drawing.colorbar(drawn, ax=axes, label=label, pad=0.01, ticks=MaxNLocator(integer=True))
    return save(drawing, path)


def _spread(values):
    """Where to draw the `values` of a parameter: numbers at themselves, choices at their places, a little spread."""
    if not _are_choices(values):
        return values.to_numpy()
    choices = sorted(values.unique())
    places = values.map({choice: place for place, choice in enumerate(choices)}).to_numpy(float)
    return places + np.random.default_rng(0).uniform(-0.15, 0.15, len(places))


def _scale(axes, side, values, logarithmic):
    """Scale the x or y `side` of `axes` for the `values` of a parameter, as `_spread` places them."""
    axis = getattr(axes, f"{side}axis")
    if _are_choices(values):
        choices = sorted(values.unique())
        axis.set_ticks(range(len(choices)), list(map(str, choices)))
    elif logarithmic:
        getattr(axes, f"set_{side}scale")("log")
        decades = np.log10(values.max() / values.min())
        locator = MaxNLocator(4) if decades < 1 else LogLocator(subs=(1, 3) if decades < 2 else (1,))
        axis.set_major_locator(locator)
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def sweep_contour(table, parameters, score, path):
    """What the two most important parameters make of the score, as a random forest reads it: the mean over the others.

    All as `sweep_top_runs` takes it; with one parameter nothing is drawn. Source: Friedman 2001, "Greedy function
    approximation", for the mean (partial dependence).
    """
    inputs, forest = _forest(table, parameters, score)
    share = {
        name: sum(
            importance
            for column, importance in zip(inputs.columns, forest.feature_importances_, strict=True)
            if column == name or column.startswith(f"{name} = ")
        )
        for name in parameters
    }
    chosen = sorted(share, key=share.get)[-2:][::-1]
    if len(chosen) < 2:
        return None
    grids = [_grid(table[name], parameters[name]) for name in chosen]
    means = np.empty([len(grid) for grid in grids][::-1])
    for column, first in enumerate(grids[0]):
        changed = pd.concat([table[list(parameters)].assign(**{chosen[0]: first, chosen[1]: at}) for at in grids[1]])
        known = pd.get_dummies(changed, prefix_sep=" = ", dtype=float).reindex(columns=inputs.columns, fill_value=0.0)
        means[:, column] = forest.predict(known).reshape(len(grids[1]), -1).mean(1)

    drawing, axes = figure(7.5, 5.5)
    at = [np.arange(len(grid)) if _are_choices(table[name]) else grid for name, grid in zip(chosen, grids, strict=True)]
    _scale(axes, "x", table[chosen[0]], parameters[chosen[0]])
    _scale(axes, "y", table[chosen[1]], parameters[chosen[1]])
    colour = axes.pcolormesh(*at, means, shading="nearest", cmap="viridis", rasterized=True)
    axes.plot(
        _spread(table[chosen[0]]), _spread(table[chosen[1]]), "o", color="white", markeredgecolor="0.3", markersize=4
    )
    axes.set(title="The two most important parameters", xlabel=_title(chosen[0]), ylabel=_title(chosen[1]))
    axes.grid(visible=False)
    drawing.colorbar(colour, ax=axes, label=f"{_title(score)}, mean of the forest", pad=0.02)
    return save(drawing, path)


def _grid(values, logarithmic):
    """Values of a parameter to look at: all choices, or 25 numbers over its range."""
    if _are_choices(values):
        return sorted(values.unique())
    return (np.geomspace if logarithmic else np.linspace)(values.min(), values.max(), 25)


def main():
    from scoring import REPORT_MATRIX

    parser(__doc__).parse_args()
    print(confusion_matrix(REPORT_MATRIX, "The report's test set", "figures/report_confusion_matrix.png"))


if __name__ == "__main__":
    run_script(main)
