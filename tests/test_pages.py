"""Pages that stand alone: what they show, what they let through, and how they look in a browser."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from conftest import PROJECT
from test_beats import heart
from test_benchmark import random_predictions
from test_episodes import windows

import episodes
import evaluation
import pages
import reasons
import report
import synthetic
from reading import Recording

NASTY = """<script>alert(1)</script> & "it's" \udcff.txt"""


def row(name, file, seconds, **more):
    measured = dict.fromkeys(reasons.PLAIN) | {"heart rate": 72.0}
    return {
        "file": file,
        "class": name,
        "uncertain": False,
        "probabilities": dict.fromkeys("ANO~", 0.1) | {name: 0.7},
        "seconds": seconds,
        "doubts": [],
        "notes": ["resampled from 250 to 300 Hz"],
        "reasons": {"sentence": f"{name}: 72/min", "measurements": measured, "drivers": {}},
    } | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pages of a normal, a fibrillating and a noisy recording, of one of a day, and of a refused file."""
    folder = tmp_path_factory.mktemp("pages")
    patch = pytest.MonkeyPatch()
    patch.setattr(pages, "has_heat", lambda: False)
    rng = np.random.default_rng(0)
    signals = [
        ("N", "A1.hea", heart("sinus", 72, seed=1)[0]),
        ("A", NASTY, heart("fibrillation", 100, seed=5)[0]),
        ("~", "noise.csv", rng.normal(0, 2000, 9000)),
    ]
    listed = []
    for name, file, signal in signals:
        one = row(name, file, len(signal) / 300, uncertain=name == "A")
        page = pages.recording(folder, one, Recording(signal, 300.0, []), None, [], 0.5)
        listed.append(one | {"page": page})
    day = windows(["ANO~"[place] for place in rng.integers(0, 4, 1800)] + ["N"] * 580 + ["A"] * 500)
    day = day._replace(rows=rng.uniform(50, 120, day.rows.shape))
    signal = np.tile(signals[0][2].astype(np.float32), 86400 * 300 // len(signals[0][2]) + 1)[: 86400 * 300]
    one = row("N", "day.edf", 86400.0, fibrillation=episodes.summary(day))
    listed.append(one | {"page": pages.recording(folder, one, Recording(signal, 300.0, []), day, [], 0.5)})
    listed.append({"file": "bad.pdf", "error": "bad.pdf is a PDF, which is not read"})
    pages.index(folder, listed)
    patch.undo()
    return folder


def names(folder):
    return [path.name for path in sorted(folder.iterdir())]


def test_names_of_files_are_text_and_nothing_else(folder):
    plain = [re.fullmatch(r"(?:([A-Za-z0-9-]+)-[0-9a-f]{8}|index)\.html", name)[1] for name in names(folder)]
    assert {"A1", "noise", "day", None} < set(plain) and len(plain) == 5
    for page in folder.iterdir():
        text = page.read_text("utf-8")
        assert "<script>alert" not in text and text.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;it&#39;s&#34;" in (folder / "index.html").read_text()
    assert re.fullmatch(r"passwd-[0-9a-f]{8}\.html", pages.page_name("../../etc/passwd"))
    assert pages.page_name("/x/心電図.csv").startswith("recording-")
    assert pages.page_name("/x/心電図.csv") != pages.page_name("/y/心電図.csv")


def test_pages_stand_alone_and_allow_only_their_own_script(folder):
    for page in folder.iterdir():
        text = page.read_text("utf-8")
        assert not re.search(r"https?://|@import|url\((?!#)|\bsrc=|\son\w+=|\sstyle=", text)
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        for kind in ("script", "style"):
            inside = re.search(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)[1]
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_index_puts_the_uncertain_first_and_tells_what_was_refused(folder):
    text = (folder / "index.html").read_text()
    order = [text.index(f'data-value="{part}') for part in ("&lt;script", "A1.hea", "noise.csv", "day.edf", "bad.pdf")]
    assert order == sorted(order)
    assert "bad.pdf is a PDF, which is not read" in text and "refused (1)" in text and "uncertain (1)" in text


def test_a_trace_is_drawn_to_scale_with_its_beats(folder):
    """The drawn path comes back to the signal: 25 mm/s, 10 mm/mV, in units of 0.1 mm."""
    signal, times = heart("sinus", 72, seed=1)
    first = pages.strips(signal, 300, 0.0, None)[0]
    start = int(re.match(r"M0 (-?\d+)l", first["path"])[1])
    numbers = [int(each) for each in re.findall(r"-?\d+", first["path"].split("l", 1)[1])]
    x, y = np.cumsum(numbers[::2]), start + np.cumsum(numbers[1::2])
    assert x[-1] == 2499 and first["width"] == 2500
    drawn = -np.interp(np.arange(2500), np.r_[0, x], np.r_[start, y]) / 100
    expected = np.interp(np.arange(2500) / 250, np.arange(len(signal)) / 300, signal) / 1000
    assert np.abs((drawn - np.median(drawn)) - (expected - np.median(expected))).max() < 0.08
    marked = np.array([int(x) for x in re.findall(r"M(-?\d+) 18", first["beats"]["beat"])]) / 250
    assert np.abs(marked[:, None] - times).min(1).max() < 0.06 and len(marked) == (times < 10).sum()


@pytest.mark.parametrize("off", [300_000, 0])
def test_what_is_left_out_has_no_beats(off):
    away = heart("sinus", 60, seed=1)[0].copy()
    away[3000:6000] = off
    rows = pages.strips(away, 300, 0.0, None)
    assert [row["label"].split(", ", 2)[2][:7] for row in rows[1:2]] == ["0 beats"]
    assert not any(row["beats"]["early"] or row["beats"]["late"] for row in rows)
    parts = pages.find_beats(away, 300)
    assert len(parts) == 2 and sum(map(len, parts)) > 15
    drawn = pages.overview(None, (0, 30), parts, [], [])
    assert (drawn["low"], drawn["high"]) in (("50", "70"), ("60", "70"), ("50", "80"))
    assert drawn["lines"][0]["rate"].count("M") == 2


@pytest.mark.parametrize(
    "rate, seconds, begin", [(124.87, 360, 0), (300, 305, 0), (250, 360.1, 12.34), (511.513, 3605, 1)]
)
def test_rows_of_the_overview_cover_it_and_frames_lie_in_one_row(rate, seconds, begin):
    places = episodes.cut(round(seconds * rate), rate)
    begins, ends = begin + (places / rate).T
    some = windows(["N"] * len(places))._replace(begins=begins, ends=ends)
    picks = [
        {"id": f"{place}", "begin": first, "seconds": last - first, "time": ""}
        for place, (first, last) in enumerate(zip(begins, ends, strict=True))
    ]
    lines = pages.overview(some, (begin, begin + seconds), [], picks, [])["lines"]
    shown = [pick for line in lines for pick in line["picks"]]
    assert [pick["id"] for pick in shown] == [pick["id"] for pick in picks]
    assert all(-1 < float(pick["x"]) < 999 for pick in shown) and all(line["shares"]["N"] == 1 for line in lines)


def test_a_rate_that_stands_alone_is_drawn():
    assert pages._curve(np.array([5.0, 10, 20, 30]), np.array([np.nan, 7, np.nan, 9])) == "M7.0 7.0h6M27.0 9.0h6"
    assert pages._curve(np.array([5.0, 10]), np.array([3.0, 7])) == "M5.0 3.0L10.0 7.0"


def test_early_and_late_beats_are_told_apart():
    peaks = np.cumsum([0, *[0.8] * 6, 0.5, 1.1, *[0.8] * 6])
    assert pages.beat_kinds(peaks).tolist() == ["beat"] * 7 + ["early", "late"] + ["beat"] * 6
    assert pages.beat_kinds(np.zeros(0)).tolist() == []


def test_the_page_of_a_day_stays_small_and_says_what_it_leaves_out(folder):
    page = folder / pages.page_name("day.edf")
    text = page.read_text()
    assert page.stat().st_size < 1_000_000
    assert f"Of 2,880 windows the traces of {pages.MOST_TRACES} are here" in text
    assert text.count("<details id=") == pages.MOST_TRACES and text.count('<details id="window-2380"') == 1
    assert "The 40 longest of" in text and text.count("<td>") == 80
    for place in re.findall(r'href="#(window-\d+)"', text):
        assert f'<details id="{place}"' in text
    assert "needs the full installation" in text


@pytest.fixture
def run_page(tmp_path, monkeypatch):
    """The page of two runs with random answers to synthetic recordings, one by the shipped model, and its path."""
    rows = random_predictions().iloc[1:41]  # of A00001 to A00040
    synthetic.write_dataset(tmp_path / "set", count=40)
    monkeypatch.chdir(tmp_path)
    for name, models in (("shipped", [str(PROJECT / "pretrained/improved.keras")]), ("other", [])):
        folder = tmp_path / "figures" / name
        folder.mkdir(parents=True)
        rows.to_csv(folder / "predictions.csv", index=False)
        known = {"labels": "reference", "protocol": "recordings that the model has not seen", "models": models}
        metrics = evaluation.measure(rows, known, 0.3)
        evaluation.draw(rows, metrics, folder)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    monkeypatch.setattr("sys.argv", ["report.py", "--run", "shipped", "other", "--data", "set"])
    report.main()
    return tmp_path / "figures/shipped/report.html"


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium to open pages in")
def test_the_page_of_a_run_in_a_browser(run_page, tmp_path):
    text = run_page.read_text()
    digest = hashlib.sha256((PROJECT / "pretrained/improved.keras").read_bytes()).hexdigest()
    assert digest in text and "python main.py --recipe improved --run improved" in text
    assert f"--model {PROJECT / 'pretrained/improved.keras'}" in text
    for title in ("F1 on the validation split", "Hardest recordings"):  # which evaluation.py does not draw
        assert f'alt="{title}' in text, title
    assert not re.search(r"https?://|@import|url\(", text) and "default-src 'none'" in text
    with Browser(tmp_path / "profile") as browser:
        looks_well(browser, run_page, tmp_path)


def looks_well(browser, page, folder):
    """Check a page in both widths and colours: no complaint, nothing too wide or too pale; pictures go to `folder`."""
    for width in (360, 1280):
        for dark in (False, True):
            browser.open(page, width, dark)
            assert browser.faults() == [] and browser.overflow() <= 0, (page, width)
            picture = folder / f"{page.name}-{width}-{dark}.png"
            browser.picture(picture, whole=False)
            assert picture.stat().st_size > 5000
            assert browser.run(CONTRAST) == [], (page, width, dark)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium to open pages in")
def test_pages_in_a_browser(folder, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        for page in names(folder):
            looks_well(browser, folder / page, tmp_path)
        browser.open(folder / "index.html", 1280)
        shown = "[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].dataset.value)"
        browser.run("document.querySelector('[data-kind=refused]').click()")
        assert browser.run(shown) == ["bad.pdf"]
        browser.run("document.querySelector('[data-kind=\"\"]').click()")
        browser.run("document.querySelectorAll('thead button')[0].click()")
        order = browser.run(shown)
        assert order[1:] == ["A1.hea", "bad.pdf", "day.edf", "noise.csv"] and "alert" in order[0]
        browser.open(folder / pages.page_name("day.edf"), 360, fragment="#window-2380")
        assert browser.run("document.getElementById('window-2380').open")
        assert not browser.run("document.getElementById('window-0').open")
        browser.run("document.querySelector('.jump a[href=\"#window-0\"]').click()")
        browser.run("location.hash = '#window-0'")
        assert browser.run("new Promise(done => setTimeout(() => done(document.getElementById('window-0').open), 200))")


# Texts whose contrast with what is behind them is below 4.5 to 1, by the formula of WCAG 2.
CONTRAST = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((each) => each / 255)
      .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("body *:not(script):not(svg *)")) {
    if (![...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort();
    if ((b + 0.05) / (a + 0.05) < 4.5) found.push(element.textContent.slice(0, 40));
  }
  return found;
})()"""
