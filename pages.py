"""Pages that show what a model says of recordings: an index, and for each recording its trace, beats and reasons.

They are made from templates/, stand alone and load nothing. What a file is called is shown as text and nothing else.
"""

import base64
import functools
import re
from collections import namedtuple
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import jinja2
import numpy as np

import beats
import episodes
import preprocessing
import quality
import reasons
from recipes import CLASSES, NAMES
from shell import writing

TEMPLATES = Path(__file__).parent / "templates"
STYLES = {name: "noise" if name == "~" else name for name in CLASSES}  # names of classes in the style sheet
ROW = 10  # s of trace in a row
RATE = 250  # Hz of a trace: a sample each 0.1 mm at 25 mm/s; in these units all of it is drawn
HEIGHT = 300, 800  # the least and most of a row, with its beats above and its heat below
CLIP = 300  # 3 mV
TOP, BOTTOM = 40, 50  # room for the beats and the heat
WARMTH = 0.5  # s
MOST_TRACES, MOST_EPISODES = 12, 40  # of a long recording, so that its page stays below 1 MB
ROWS = 6  # of the timeline, at most
SPANS = [
    60 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 1440, 10080)
]  # s that a row of it may have
COLD = "Where the network looked is not shown: that needs the full installation, with TensorFlow."

CHOSEN = "the first, those where episodes begin and in their middle, the fastest, the slowest and the least certain"

# Part of a recording whose trace is drawn: its first sample and end, the window's place or None, and why it is drawn.
Part = namedtuple("Part", "first end place why")
# The heart rate (1/min) and class (its index, or -1) of pieces of a recording from begins to ends (s), (pieces,) each.
Course = namedtuple("Course", "begins ends rates classes")


# ── Pages ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _environment():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (TEMPLATES / "style.css").read_text("utf-8")
    titles = {name: title.split(" (")[0].lower() for name, title in NAMES.items()}
    environment.globals |= {"style": style, "hash": _hash, "css": STYLES, "names": NAMES, "clock": episodes.clock}
    environment.globals |= {"titles": titles | {"uncertain": "uncertain", "refused": "refused"}, "script": ""}
    return environment


def _hash(text):
    """What a Content-Security-Policy calls an inline style or script."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def render(template, path, script="", **values):
    """Write the page that `template`, of templates/, makes of `values` to `path`; script: of templates/ too."""
    text = (TEMPLATES / script).read_text("utf-8") if script else ""
    page = _environment().get_template(template).render(values, script=text)
    with writing(path) as temporary:
        temporary.write_text(page, "utf-8", "xmlcharrefreplace")  # a file's name may hold what is no character


def index(folder, rows):
    """Write `folder`/index.html, a line for each of the rows of `answers.classify`, whose pages are there."""
    rows = [_listed(row) for row in rows]
    rows.sort(key=lambda row: (not row["uncertain"], row["class"] is None))
    kinds = STYLES | {"uncertain": "uncertain", "refused": "refused"}
    counts = {name: sum(kind in row["kinds"].split() for row in rows) for name, kind in kinds.items()}
    long = any(row["share"] is not None for row in rows)
    render("index.html", folder / "index.html", "index.js", rows=rows, counts=counts, kinds=kinds, fibrillation=long)


def _listed(row):
    """What the index shows of a row."""
    kind = STYLES[row["class"]] if "class" in row else "refused"
    return {
        "file": row["file"],
        "page": row.get("page"),
        "kinds": kind + " uncertain" * bool(row.get("uncertain")),
        "class": row.get("class"),
        "uncertain": row.get("uncertain", False),
        "probability": max(row["probabilities"].values()) if "class" in row else None,
        "seconds": row.get("seconds"),
        # Of noise, what looks like beats tells no rate.
        "heart": row["reasons"]["measurements"]["heart rate"] if row.get("class", "~") != "~" else None,
        "share": (row.get("fibrillation") or {}).get("share"),
        "sentence": row["reasons"]["sentence"] if "class" in row else "",
        "error": row.get("error"),
    }


def page_name(file):
    """A file name for the page of the recording `file`, which may be called anything; of each its own."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", Path(file).stem).strip("-")[:60]
    own = sha256(file.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{plain or 'recording'}-{own}.html"


def recording(folder, row, read, windows, models, confidence):
    """Write the page of a recording into `folder`, and return its name.

    row: what `answers.py` says of it, with its reasons; read: a `reading.Recording`;
    windows: its `episodes.Windows` or None; models: [`runs.Saved`], of which the first is asked where it looked;
    confidence: the probability below which a class is called uncertain.
    """
    name = page_name(row["file"])
    long = episodes.is_long(read)
    parts = choose(windows, row) if long else [Part(0, len(read.signal), None, "")]
    if long:
        parts = [part._replace(first=first, end=end) for part in parts for first, end in [_span(part, read)]]
    warm = has_heat()
    pieces = [_piece(part, row, read, windows, models, warm, confidence) for part in parts]
    peaks = [] if long else [part + read.begin for part in find_beats(read.signal, read.sampling_rate)]
    found = (row.get("fibrillation") or {}).get("list", [])
    render(
        "recording.html",
        folder / name,
        "recording.js",
        row=row,
        sampling_rate=read.sampling_rate,
        episodes=episodes.told(row["fibrillation"]) if "fibrillation" in row else None,
        listed=sorted(sorted(found, key=lambda e: e["begin"] - e["end"])[:MOST_EPISODES], key=lambda e: e["begin"]),
        overview=overview(windows, (read.begin, read.begin + row["seconds"]), peaks, pieces if long else [], found),
        traces=pieces,
        clipped=any(strip["clipped"] for piece in pieces for strip in piece["strips"]),
        cold=None if warm else COLD,
        chosen=CHOSEN,
        window=episodes.WINDOW,
        strip=ROW,
    )
    return name


# ── Which windows are drawn ─────────────────────────────────────────────────────────────────────────────────────────


def choose(windows, row):
    """[`Part`] of the windows of a long recording that are drawn, in order, each with why; the samples are not set."""
    confidences = windows.probabilities.max(1)
    rates = readable_rates(windows)
    wanted = [(0, "the first")]
    for episode in sorted(row["fibrillation"]["list"], key=lambda episode: episode["begin"] - episode["end"])[:3]:
        inside = np.flatnonzero((windows.begins >= episode["begin"] - 1) & (windows.ends <= episode["end"] + 1))
        wanted += [(inside[0], "where an episode begins"), (inside[len(inside) // 2], "in the middle of an episode")]
    if np.isfinite(rates).any():
        wanted += [(np.nanargmax(rates), "the fastest"), (np.nanargmin(rates), "the slowest")]
    wanted += [(place, "among the least certain") for place in np.argsort(confidences, kind="stable")[:MOST_TRACES]]
    reasons_of = {}
    for place, why in wanted:
        if len(reasons_of) < MOST_TRACES or int(place) in reasons_of:
            reasons_of.setdefault(int(place), []).append(why)
    return [Part(None, None, place, " and ".join(reasons_of[place])) for place in sorted(reasons_of)]


def _span(part, read):
    return episodes.cut(len(read.signal), read.sampling_rate)[part.place].tolist()


def _piece(part, row, read, windows, models, warm, confidence):
    """What the page shows of a `Part` of a recording; the rest as `recording` takes it."""
    signal = read.signal[part.first : part.end]
    if part.place is None:
        said = {name: row[name] for name in ("probabilities", "class", "uncertain")} | {"sentence": ""}
    else:
        p = windows.probabilities[part.place]
        said = {"probabilities": dict(zip(CLASSES, p.tolist(), strict=True)), "class": CLASSES[p.argmax()]}
        measured = windows.rows[[part.place]]
        said["sentence"] = reasons.explain(p, measured, models)["sentence"]
        doubts = quality.doubts(p, beats.typical(measured), windows.usable[part.place], confidence)
        said["uncertain"] = bool(doubts)
    chosen = CLASSES.index(said["class"])
    warmth = _warmth(models[0], signal, read.sampling_rate, chosen) if warm else None
    begin = read.begin + part.first / read.sampling_rate
    return said | {
        "id": f"window-{part.place}",
        "place": part.place,
        "begin": begin,
        "seconds": len(signal) / read.sampling_rate,
        "time": episodes.clock(begin),
        "why": part.why,
        "strips": strips(signal, read.sampling_rate, begin, warmth),
    }


def has_heat():
    """Whether the packages are installed that heat takes."""
    return all(find_spec(name) for name in ("tensorflow", "keras", "cv2"))


def _warmth(saved, signal, sampling_rate, chosen):
    import heatmaps  # and with it TensorFlow

    return heatmaps.along(saved, signal, sampling_rate, chosen, WARMTH)


# ── Traces ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def strips(signal, sampling_rate, begin, warmth):
    """Rows of a trace as the templates draw them, in units of 0.1 mm: paper, path, beats and heat.

    signal: (samples,) in µV at `sampling_rate` in Hz, which begins `begin` s into the recording; warmth: 0 to 1 for
    each `WARMTH` s, or None.
    """
    parts = find_beats(signal, sampling_rate)
    peaks, kinds = np.concatenate(parts), np.concatenate([beat_kinds(part) for part in parts])
    drawn = preprocessing.resample(signal - np.median(signal), sampling_rate, RATE) / 10  # 0.1 mm are 10 µV
    rows = [drawn[start : start + ROW * RATE] for start in range(0, len(drawn), ROW * RATE)]
    rows = [row - np.median(row) for row in rows if len(row) > RATE / 5]
    up, down = (max(np.abs(side(row)) for row in rows) for side in (np.max, np.min))
    up, down = min(up, CLIP), min(down, CLIP)
    height = int(np.clip(-(-(up + down + TOP + BOTTOM + 20) // 50) * 50, *HEIGHT))
    middle = (height - up - down - TOP - BOTTOM) / 2 + TOP + up
    made = []
    for place, row in enumerate(rows):
        start = place * ROW
        shown = (peaks >= start) & (peaks < start + ROW)
        made.append(
            {
                "width": len(row),
                "height": height,
                "time": episodes.clock(begin + start),
                "path": line(np.round(middle - np.clip(row, -CLIP, CLIP)).astype(int)),
                "beats": marks(((peaks[shown] - start) * RATE).round().astype(int), kinds[shown]),
                "heat": [] if warmth is None else _warm(warmth[round(start / WARMTH) :], len(row)),
                "label": _label(begin + start, len(row) / RATE, kinds[shown]),
                "clipped": bool(np.abs(row).max() > CLIP),
            }
        )
    return made


def find_beats(signal, sampling_rate):
    """Times of the R peaks in s, (beats,) of each stretch of `signal` that holds an ECG: elsewhere there are none."""
    return [
        beats.find(signal[start:stop], sampling_rate)["sleepecg"] + start / sampling_rate
        for start, stop in quality.parts(signal, sampling_rate)
    ]


def beat_kinds(peaks):
    """ "beat", "early" or "late" for each R peak at times `peaks` (beats,) in s, by the interval before it."""
    kinds = np.full(len(peaks), "beat ")
    if len(peaks) > 2:
        early, late, _ = beats.timing(np.diff(peaks))
        kinds[1:][early], kinds[1:][late] = "early", "late"
    return np.char.strip(kinds)


def line(heights):
    """The path of an SVG through `heights` (samples,), integers one unit apart; straight stretches are one piece."""
    if len(heights) < 2:
        return ""
    steps = np.diff(heights)
    made = [f"M0 {heights[0]}l"]
    for first, end in equal_runs(steps):
        made.append(f"{end - first} {(end - first) * steps[first]}")
    return made[0] + " ".join(made[1:]).replace(" -", "-")


def equal_runs(values):
    """(first, end) of the runs of equal values in `values` (n,), each as long as it can be."""
    edges = np.r_[0, np.flatnonzero(values[1:] != values[:-1]) + 1, len(values)]
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def marks(places, kinds):
    """{kind of beat: path of its marks} at `places` (beats,), a dot, a triangle or a diamond for each."""
    shapes = {"beat": "M{} 18a7 7 0 1 0 .1 0", "early": "M{} 18h24l-12 20z", "late": "M{} 15l10 11-10 11-10-11z"}
    left = {"beat": 0, "early": 12, "late": 0}
    return {
        kind: "".join(shape.format(place - left[kind]) for place in places[kinds == kind])
        for kind, shape in shapes.items()
    }


def _warm(warmth, width):
    size = int(WARMTH * RATE)
    cells = [
        {"x": place * size, "width": min(size, width - place * size), "opacity": f"{value:.2f}"}
        for place, value in enumerate(warmth[: -(-width // size)])
    ]
    return [cell for cell in cells if float(cell["opacity"]) >= 0.03 and cell["width"] > 0]


def _label(begin, seconds, kinds):
    counts = [f"{np.count_nonzero(kinds == kind)} {kind}" for kind in ("early", "late") if (kinds == kind).any()]
    unusual = f", of which {' and '.join(counts)}" if counts else ""
    return f"ECG from {episodes.clock(begin)}, {seconds:.0f} s, {len(kinds)} beats{unusual}"


# ── Overview ────────────────────────────────────────────────────────────────────────────────────────────────────────


def overview(windows, lasts, peaks, picks, found):
    """Rows over the whole recording: classes of its windows as a strip, where there are some, and the heart rate.

    lasts: (begin, end) of the recording in s; peaks: times of the R peaks in s, whose rate is drawn where there are no
    windows; picks: the pieces that links open; found: the episodes, as `episodes.summary` lists them.
    """
    course = _course(windows, peaks)
    known = course.rates[np.isfinite(course.rates)]
    low, high = (10 * (known.min() // 10), 10 * (known.max() // 10 + 1)) if len(known) else (0, 10)
    first, last = lasts
    span = next((each for each in SPANS if each * ROWS >= last - first), SPANS[-1]) if picks else last - first
    begins = np.arange(first, last, span)
    if len(begins) > 1 and last - begins[-1] < episodes.LEAST:  # which belongs to the window before it
        begins = begins[:-1]
    lines = []
    for begin, end in zip(begins, [*begins[1:], last], strict=True):
        own = max(span, end - begin)
        here = [piece for piece in picks if begin <= piece["begin"] + piece["seconds"] / 2 < end]
        lines.append(_overview_line(course, begin, end, own, (low, high)))
        lines[-1] |= {"picks": [_pick(piece, begin, own) for piece in here], "episodes": _bands(found, begin, own)}
    return {
        "lines": lines,
        "strip": [name for place, name in enumerate(CLASSES) if (course.classes == place).any()],
        "low": f"{low:.0f}",
        "high": f"{high:.0f}",
        "long": bool(picks),
        "windows": f"{len(course.begins):,}",
    }


def _course(windows, peaks):
    """The `Course` of a recording by its windows, or, without any, by the times of its R peaks."""
    if windows is None:
        part_of, peaks = np.repeat(np.arange(len(peaks)), [len(part) for part in peaks]), np.concatenate(peaks)
        rates = np.where(np.diff(part_of) > 0, np.nan, 60 / np.diff(peaks))  # what was left out has no rate
        return Course(peaks[:-1], peaks[1:], rates, np.full(len(rates), -1))
    classes = windows.probabilities.argmax(1)
    return Course(windows.begins, windows.ends, readable_rates(windows), classes)


def readable_rates(windows):
    """The heart rate (1/min) of each of some `Windows`, NaN where it is noise: what is found there are no beats."""
    rates = windows.rows[:, [name for name, _, _ in beats.MEASUREMENTS].index("heart rate")]
    return np.where(windows.probabilities.argmax(1) == CLASSES.index("~"), np.nan, rates)


def _overview_line(course, begin, end, span, bounds):
    """A row of the overview from `begin` to `end` (s), 1000 units wide where it lasts `span`; bounds: of the rate."""
    middles = (course.begins + course.ends) / 2
    inside = (middles >= begin) & (middles < end)
    classes, rates = course.classes[inside], course.rates[inside]
    lefts, rights = ((each[inside] - begin) / span * 1000 for each in (course.begins, course.ends))
    strip, shares = {}, {}
    for place, name in enumerate(CLASSES):
        shares[name] = float(np.mean(classes == place)) if len(classes) else 0.0
        pieces = quality.runs(classes == place)
        if pieces:
            strip[name] = "".join(f"M{lefts[a]:.1f} 48H{rights[b - 1]:.1f}V60H{lefts[a]:.1f}z" for a, b in pieces)
    label = f"{episodes.clock(begin)} to {episodes.clock(end)}"
    heart = f"{np.nanmedian(rates):.0f}/min" if np.isfinite(rates).any() else "-"
    parts = [f"{NAMES[name]} {share:.0%}" for name, share in shares.items() if share]
    return {
        "label": label,
        "told": ", ".join([label, *parts, f"median heart rate {heart}"]),
        "strip": strip,
        "shares": shares,
        "heart": heart,
        "rate": _curve((lefts + rights) / 2, 42 - 40 * (rates - bounds[0]) / (bounds[1] - bounds[0])),
    }


def _bands(found, begin, span):
    """The path of the episodes in a row from `begin` (s), which is `span` s long."""
    ends = [np.clip([(each[key] - begin) / span * 1000 for key in ("begin", "end")], 0, 1000) for each in found]
    return "".join(f"M{left:.1f} 43H{right:.1f}V46H{left:.1f}z" for left, right in ends if right > left)


def _curve(x, y):
    """The path of an SVG through points, (n,) each, which stops where one is not known."""
    made = []
    for first, end in quality.runs(np.isfinite(y)):
        points = [f"{a:.1f} {b:.1f}" for a, b in zip(x[first:end], y[first:end], strict=True)]
        made.append("M" + "L".join(points) if len(points) > 1 else f"M{x[first] - 3:.1f} {y[first]:.1f}h6")  # a dash
    return "".join(made)


def _pick(piece, begin, span):
    x = (piece["begin"] - begin) / span * 1000
    return {
        "id": piece["id"],
        "time": piece["time"],
        "x": f"{x:.1f}",
        "width": f"{max(piece['seconds'] / span * 1000, 6):.1f}",
    }
