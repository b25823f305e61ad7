import datetime
import io
import os
import shutil
import socket
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from conftest import PROJECT

import bounds
import dataset
import reading
import synthetic
from shell import UserError

SECONDS = 10
UV = synthetic.recording("N", SECONDS, np.random.default_rng(5)).astype(float)  # whole numbers, at 300 Hz
MV = UV / 1000
OTHER = np.roll(UV, 70) * 0.6  # a second lead
FS = 300


def write(tmp_path, text, name="ecg.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def column(signal=UV, decimals=3, end="\n"):
    return "".join(f"{value:.{decimals}f}{end}" for value in signal)


def check(recording, expected=UV, rate=FS, atol=0.001, notes=()):
    """The signal, rate and notes, each given as a part of the sentence, and no other notes."""
    assert recording.signal.dtype == np.float64 and recording.signal.shape == np.shape(expected)
    np.testing.assert_allclose(recording.signal, expected, rtol=0, atol=atol)
    assert isinstance(recording.sampling_rate, float) and recording.sampling_rate == pytest.approx(rate, rel=1e-9)
    assert len(recording.notes) == len(notes), recording.notes
    for note, part in zip(recording.notes, notes, strict=True):
        assert part in note


def refused(message, path, **arguments):
    """That reading is refused with one sentence that matches, and return the sentence."""
    with pytest.raises(UserError, match=message) as caught:
        reading.read(path, **arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence and str(path.with_suffix("")) in sentence
    return sentence


def test_a_signal_in_a_single_line(tmp_path):
    (tmp_path / "line.csv").write_text(",".join(f"{value:.3f}" for value in UV / 1000))
    check(reading.read(tmp_path / "line.csv", fs=FS, unit="mV"), atol=1)


# --- WFDB and .mat ---


@pytest.fixture
def two_leads(tmp_path):
    """A record with breathing, lead II and lead I, whose header gives another unit to each; path without suffix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about how wfdb uses it
        import wfdb

        wfdb.wrsamp(
            "r1",
            fs=257.5,
            units=["V", "mV", "uV"],
            sig_name=["RESP", "II", "I"],
            p_signal=np.column_stack([MV, OTHER / 1000, UV]),
            fmt=["24", "16", "212"],
            adc_gain=[1e6, 8000, 0.5],
            baseline=[0, 0, 0],
            write_dir=str(tmp_path),
        )
    return shutil.copy(tmp_path / "r1.hea", tmp_path / "r.1.hea").with_suffix("")


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_wfdb_by_any_of_its_names(two_leads, suffix):
    path = two_leads.with_name(two_leads.name + suffix)
    check(reading.read(path), rate=257.5, atol=1.001, notes=["of 3 leads I was taken; the others are RESP, II"])
    check(reading.read(path, lead="ii"), OTHER, 257.5, atol=0.07, notes=["of 3 leads II was taken"])
    check(reading.read(path, lead="2"), OTHER, 257.5, atol=0.07, notes=["of 3 leads II was taken"])
    refused("in V; pass --unit mV, or raw", path, lead="RESP")
    refused("has no lead V1; pass --lead one of RESP, II, I, or", path, lead="V1")
    refused("has no lead 4;", path, lead="4")


def test_wfdb_overruled(two_leads):
    notes = ["of 3", "says 257.5 Hz but --fs 200 was", "the file says V but --unit mV was taken"]
    check(reading.read(two_leads, lead="resp", fs=200, unit="mV"), rate=200, notes=notes)
    raw = reading.read(two_leads, lead="II", unit="raw")
    check(raw, np.round(OTHER * 8), 257.5, notes=["of 3", "as they are, as 1000 per mV"])


@pytest.mark.parametrize("end", ["1000/mV 16 0", "1000", "0.001/V", "1/uV 16 0"])
def test_wfdb_units(tmp_path, end):
    """No unit in the header means mV."""
    factor = {"0.001/V": 1e9, "1000": 1}.get(end, 1)
    (tmp_path / "a.hea").write_text(f"a 1 300 {len(UV)}\na.dat 16 {end}\n")
    (tmp_path / "a.dat").write_bytes(UV.astype("<i2").tobytes())
    if factor != 1:
        refused("is not that of an ECG in V; pass --unit ", tmp_path / "a.hea")
    else:
        check(reading.read(tmp_path / "a.hea"))


def test_wfdb_gaps_and_segments(tmp_path):
    half = len(UV) // 2
    for name, part in {"s1": UV[:half], "s2": UV[half:]}.items():
        stored = part.astype("<i2")
        stored[100:130] = -32768  # the format's word for a missing sample
        (tmp_path / f"{name}.hea").write_text(f"{name} 1 300 {len(part)}\n{name}.dat 16 1000/mV 16 0 0 0 0 MLII\n")
        (tmp_path / f"{name}.dat").write_bytes(stored.tobytes())
    (tmp_path / "m.hea").write_text(f"m/2 1 300 {len(UV)}\ns1 {half}\ns2 {len(UV) - half}\n")
    expected = UV.copy()
    for start in (100, half + 100):
        expected[start : start + 30] = np.interp(np.arange(1, 31), [0, 31], UV[[start - 1, start + 30]])
    check(reading.read(tmp_path / "m"), expected, notes=["60 samples were missing and interpolated"])
    (tmp_path / "s2.dat").unlink()
    refused("names s2.dat, which is not beside it", tmp_path / "s2.hea")
    with pytest.raises(UserError, match=r"s2.hea names s2.dat"):
        reading.read(tmp_path / "m.hea")


@pytest.mark.parametrize(
    "header, message",
    [
        ("", "is not a WFDB record"),
        ("a one 300 10\na.dat 16\n", "is not a WFDB record"),
        ("a 1 300 900000\na.dat 16 1000/mV\n", "is not a WFDB record"),
        ("a 1 300 2400\n../a.dat 16 1000/mV\n", "names ../a.dat, which is not beside it"),
        ("a 1 300 2400\nb.dat 16 1000/mV\n", "names b.dat, which is not beside it"),
        ("a 1 300 2400\na.dat 16 1/adu\n", r"its voltage \('adu' is none\); pass --unit mV, uV or raw"),
        ("a/1 1 300 2400\na 2400\n", "is not a WFDB record"),
        ("a 0 300\n", "is not a WFDB record"),
    ],
)
def test_wfdb_damage(tmp_path, header, message):
    (tmp_path / "a.hea").write_text(header)
    (tmp_path / "a.dat").write_bytes(UV.astype("<i2").tobytes())
    refused(message, tmp_path / "a.hea")


def test_a_wfdb_signal_without_its_header(tmp_path):
    (tmp_path / "a.dat").write_bytes(b"\0\1" * 3000)
    refused("a.hea does not exist; a WFDB record needs its header", tmp_path / "a.dat")


@pytest.mark.parametrize("name", ["A00001", "A00001.mat", "A00001.hea"])
def test_a_record_of_the_challenge(folder, name):
    stored = scipy.io.loadmat(folder / "A00001.mat")["val"][0]
    check(reading.read(folder / name), stored)


@pytest.mark.parametrize("version", ["4", "5", "5 packed", "5 float"])
def test_a_mat_file_of_any_version_with_its_header(tmp_path, version):
    numbers = np.stack([OTHER.round(), UV]).astype(float if version == "5 float" else np.int16)
    scipy.io.savemat(tmp_path / "a.mat", {"val": numbers}, format=version[0], do_compression="packed" in version)
    lines = [f"a.mat 16+24 1000/mV 16 0 0 0 0 {lead}\n" for lead in ("II", "I")]
    (tmp_path / "a.hea").write_text(f"a 2 300 {len(UV)}\n" + "".join(lines))
    (tmp_path / "a.mat").rename(tmp_path / "a.MAT")
    for name in ("a.MAT", "a.hea", "a"):
        check(reading.read(tmp_path / name), notes=["of 2 leads I was taken; the others are II"])
    scipy.io.savemat(tmp_path / "a.MAT", {"val": numbers / 2000})
    refused("names a.mat, which does not hold whole numbers of 16 bits", tmp_path / "a.hea")


def test_the_header_of_another_file_beside_a_mat_file(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"val": UV[None]})
    (tmp_path / "a.hea").write_text(f"a 1 300 {len(UV)}\na.dat 16 1000\n")
    (tmp_path / "a.dat").write_bytes(OTHER.astype("<i2").tobytes())
    check(reading.read(tmp_path / "a.mat", fs=300), notes=["the file has no header"])
    check(reading.read(tmp_path / "a.hea"), OTHER, atol=1)


def test_a_mat_file_without_header(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"val": UV[None].astype(np.int16)})
    check(reading.read(path, fs=300), notes=["no header, so its unit was taken to be 1000 per mV"])
    refused("does not tell its sampling rate; pass --fs HZ", path)
    refused("1,.* mV is not that of an ECG in mV; pass --unit uV, or raw", path, fs=300, unit="mV")
    scipy.io.savemat(path, {"val": np.column_stack([MV, OTHER / 1000])})
    check(reading.read(path, "2", 300, "mV"), OTHER, notes=["of 2 leads lead 2 was taken; the others are lead 1"])
    scipy.io.savemat(path, {"x": MV})
    refused("no variable 'val'", path, fs=300)
    scipy.io.savemat(path, {"val": "text"})
    refused("holds text in .val.; save an array of numbers", path, fs=300)
    path.write_bytes(bytes(20))
    refused("is not a MATLAB file", path, fs=300)


def test_the_real_set(real_set, tmp_path):
    with zipfile.ZipFile(real_set) as archive:
        for name in ("A00001", "A00205", "A08528"):
            for suffix in (".mat", ".hea"):
                content = archive.read(f"training2017/{name}{suffix}")
                (tmp_path / f"{name}{suffix}").write_bytes(content)
            stored = dataset.parse_signal((tmp_path / f"{name}.mat").read_bytes(), name)
            check(reading.read(tmp_path / f"{name}.mat"), stored)


# --- EDF ---


def edf(tmp_path, signals, bdf=False, **arguments):
    """A file of (label, unit, signal in that unit, rate), the extreme digits being of twice the peak."""
    import edfio

    kind, signal_kind = (edfio.Bdf, edfio.BdfSignal) if bdf else (edfio.Edf, edfio.EdfSignal)
    parts = [
        signal_kind(
            x, fs, label=label, physical_dimension=unit, physical_range=(-2 * np.abs(x).max(), 2 * np.abs(x).max())
        )
        for label, unit, x, fs in signals
    ]
    path = tmp_path / ("a.bdf" if bdf else "a.edf")
    kind(parts, **arguments).write(path)
    return path


@pytest.mark.parametrize("bdf", [False, True])
@pytest.mark.parametrize("unit, factor", [("uV", 1), ("mV", 1e3), ("V", 1e6)])
def test_edf_units(tmp_path, unit, factor, bdf):
    path = edf(tmp_path, [("ECG Lead I", unit, UV / factor, 300)], bdf)
    check(reading.read(path), atol=0.5)


def test_edf_leads_and_annotations(tmp_path):
    from edfio import EdfAnnotation

    signals = [
        ("SpO2", "%", np.linspace(90, 99, SECONDS), 1),
        ("ECG II", "mV", OTHER / 1000, 300),
        ("ECG I", "uV", UV[::2], 150),
    ]
    path = edf(tmp_path, signals, annotations=[EdfAnnotation(1, None, "symptom")])
    check(reading.read(path), UV[::2], 150, 0.5, ["of 3 leads ECG I was taken; the others are SpO2, ECG II"])
    check(reading.read(path, lead="lead ii"), OTHER, atol=0.5, notes=["ECG II was taken"])
    refused("tell its voltage .'%' is none.; pass --unit", path, lead="1", fs=300)


def test_edf_with_a_micro_sign_and_no_unit(tmp_path):
    path = edf(tmp_path, [("ECG", "uV", UV, 300)])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"uV ", b"\xb5V ", 1))
    check(reading.read(path), atol=0.5)
    path.write_bytes(content.replace(b"uV ", b"   ", 1))
    refused("does not tell its unit; pass --unit mV, uV or raw", path)
    check(reading.read(path, unit="uV"), atol=0.5)
    digital = UV * 65535 / (4 * np.abs(UV).max())
    check(reading.read(path, unit="raw"), digital, atol=1.5, notes=["as they are, as 1000 per mV"])


def test_edf_damage(tmp_path):
    from edfio import EdfAnnotation

    path = edf(tmp_path, [("ECG", "uV", UV, 300)], data_record_duration=1, annotations=[EdfAnnotation(1, None, "x")])
    content = path.read_bytes()
    path.write_bytes(content[:-3000])
    cut = reading.read(path)
    assert len(cut.signal) < len(UV) and all("the file is damaged: " in note for note in cut.notes) and cut.notes
    path.write_bytes(content.replace(b"+3\x14\x14", b"+4\x14\x14", 1))
    refused("with interruptions", path)
    path.write_bytes(content[:300])
    refused("is a damaged EDF file", path)


# --- Apple Watch ---

APPLE = """Name,Jane Doe
Date of Birth,"Jan 8, 1972"
Recorded Date,2026-03-14 09:15:00 -0400
Classification,Sinus Rhythm
Symptoms,
Software Version,2.0
Device,"Watch6,1"
Sample Rate,512 hertz


Lead,Lead I
Unit,µV

"""
GERMAN = """Name,Erika Muster
Geburtsdatum,08.01.1972
Aufzeichnungsdatum,2026-03-14 09:15:00 +0100
Klassifizierung,Sinusrhythmus
Softwareversion,2.0
Gerät,"Watch6,1"
Messrate,{rate}

Ableitung,Ableitung I
Einheit,µV

"""


def commas(signal=UV, quote=""):
    """As iOS writes them: without needless decimals, so that some lines have no comma."""
    return "".join(f"{quote}{value:.3f}".rstrip("0").rstrip(".").replace(".", ",") + f"{quote}\n" for value in signal)


FRACTIONS = UV + np.linspace(0, 0.9, len(UV)).round(3)  # decimals of any length


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_apple_encodings(tmp_path, encoding, end):
    text = (APPLE + column(FRACTIONS)).replace("\n", end)
    check(reading.read(write(tmp_path, text, encoding=encoding)), FRACTIONS, 512)


@pytest.mark.parametrize(
    "value, rate",
    [
        ("512 hertz", 512),
        ("512.844 hertz", 512.844),
        ("510,227 Hertz", 510.227),
        ('"510,227 Hertz"', 510.227),
        ("511,562\u00a0Hertz", 511.562),
        ("512Hz", 512),
        ("512 hercios", 512),
        ("512ヘルツ", 512),
        ("512 Гц", 512),
        ("512 герц", 512),
        ("512赫兹", 512),
    ],
)
def test_apple_rates_and_decimal_commas(tmp_path, value, rate):
    path = write(tmp_path, GERMAN.format(rate=value) + commas(FRACTIONS))
    check(reading.read(path), FRACTIONS, rate, notes=["decimal commas"])


def test_apple_quoted_decimal_commas(tmp_path):
    path = write(tmp_path, GERMAN.format(rate="512 Hertz") + commas(FRACTIONS, '"'))
    check(reading.read(path), FRACTIONS, 512)


@pytest.mark.parametrize("name", ["µV", "\u03bcV", "uV", "UV", "microvolts", "мкВ"])
def test_spellings_of_microvolts(tmp_path, name):
    check(reading.read(write(tmp_path, APPLE.replace("µV", name) + column())), rate=512)


@pytest.mark.parametrize("unit, factor", [("mV", 1e3), ("V", 1e6), ("millivolt", 1e3)])
def test_apple_layout_in_larger_units(tmp_path, unit, factor):
    check(reading.read(write(tmp_path, APPLE.replace("µV", unit) + column(UV / factor, 9))), rate=512)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_apple_resaved_by_a_spreadsheet(tmp_path, separator):
    """Every line filled up with separators to the same number, the numbers in the local form."""
    header = [line.replace(",", separator, 1) for line in GERMAN.format(rate="512 Hertz").splitlines()]
    decimals = column() if separator == "," else commas()
    text = "\r\n".join(line + 2 * separator for line in header + decimals.splitlines())
    check(reading.read(write(tmp_path, text, encoding="cp1252")), rate=512)


def test_apple_lead_and_overrule(tmp_path):
    path = write(tmp_path, APPLE + column())
    check(reading.read(path, lead="I"), rate=512)
    check(reading.read(path, lead="1", unit="uV", fs=512), rate=512)
    check(reading.read(path, fs=500), rate=500, notes=["the file says 512 Hz but --fs 500 was taken"])
    refused("has no lead II; pass --lead one of Lead I", path, lead="II")
    sentence = refused("not that of an ECG in mV; pass --unit uV, or raw", path, unit="mV")
    assert f"amplitude of {np.subtract(*np.percentile(UV, [99, 1])):,.0f} mV" in sentence


# --- other CSV and text ---

T = np.arange(len(UV)) / FS


def table(*columns, separator=",", header="", decimals=6, decimal="."):
    rows = zip(*columns, strict=True)
    lines = (
        separator.join(f"{value:.{decimals}f}".replace(".", decimal) if value == value else "" for value in row)
        for row in rows
    )
    return header + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "separator, decimal, suffix",
    [
        (",", ".", ".csv"),
        (";", ".", ".CSV"),
        (";", ",", ".csv"),
        ("\t", ",", ".tsv"),
        ("\t", ".", ".asc"),
        (" ", ".", ".txt"),
        ("  ", ".", ""),
    ],
)
def test_two_leads_and_a_time_column(tmp_path, separator, decimal, suffix):
    header = separator.join(["time(s)", "II(mV)", "I(mV)"]) + "\n"
    text = table(T, OTHER / 1000, MV, separator=separator, decimal=decimal, header=header)
    path = write(tmp_path, text, f"a{suffix}")
    taken = "the column time(s) tells the sampling rate, 300 Hz"
    check(reading.read(path), notes=["of 2 leads I was taken; the others are II", taken])
    check(reading.read(path, lead="1", fs=300), OTHER, notes=["of 2 leads II was taken", taken])


@pytest.mark.parametrize(
    "name, scale, decimals, rate",
    [
        ("t [ms]", 1000, 0, 300),
        ("time_ms", 1000, 3, 300),
        ("s", 1, 4, 300),
        ("Zeit (s)", 1, 9, 510.227),
        ("time", 1, 6, 300),
        ("t", 1000, 3, 300),
    ],
)
def test_units_of_a_time_column(tmp_path, name, scale, decimals, rate):
    """Times rounded to 1 ms still give 300 Hz."""
    times = [f"{i / rate * scale:.{decimals}f}" for i in range(len(UV))]
    text = f"{name};ECG_mV\n" + "".join(f"{t};{x:.6f}\n" for t, x in zip(times, MV, strict=True))
    check(reading.read(write(tmp_path, text)), rate=rate, notes=["tells the sampling rate"])


@pytest.mark.parametrize("header", ["", "sample,ECG\n"])
@pytest.mark.parametrize("start", [0, 1])
def test_an_index_column_is_left_out(tmp_path, header, start):
    index = np.arange(start, start + len(UV))
    path = write(tmp_path, table(index, UV, decimals=0, header=header))
    check(reading.read(path, fs=300, unit="uV"))
    path = write(tmp_path, table(index, UV + 2000, decimals=0, header=header))  # no sign anywhere
    check(reading.read(path, fs=300, unit="uV"), UV + 2000)


@pytest.mark.parametrize("scale", [300, 1e9])
def test_times_of_an_unknown_unit_give_no_rate(tmp_path, scale):
    """Counted samples, though a thousand a second are a rate; and nanoseconds."""
    path = write(tmp_path, table(T * scale, MV, decimals=1, header="time,I (mV)\n"))
    refused("does not tell its sampling rate; pass --fs HZ", path)


def test_uneven_times_give_no_rate(tmp_path):
    times = T**1.5
    path = write(tmp_path, table(times, MV, header="time (s),I (mV)\n"))
    refused(r"tell its sampling rate \(the times in the column time \(s\) are uneven\); pass --fs HZ", path)
    check(reading.read(path, fs=300), notes=["the times in the column time (s) are uneven"])


@pytest.mark.parametrize("decimal", [".", ","])
def test_one_bare_column(tmp_path, decimal):
    path = write(tmp_path, column(MV).replace(".", decimal), "a.txt")
    notes = ["decimal commas"] if decimal == "," else []
    check(reading.read(path, fs=300, unit="mV"), notes=notes)
    refused("does not tell its sampling rate or unit; pass --fs HZ and --unit mV, uV or raw", path)
    refused("does not tell its unit; pass --unit mV", path, fs=300)
    refused("does not tell its sampling rate; pass --fs HZ$", path, unit="mV")
    refused(r"amplitude of 1\.\d uV is not that of an ECG in uV; pass --unit mV, or raw", path, fs=300, unit="uV")
    check(reading.read(path, fs=300, unit="raw"), MV, notes=[*notes, "as 1000 per mV"])


def test_two_columns_of_integers_are_no_decimals(tmp_path):
    path = write(tmp_path, table(UV, OTHER, decimals=0))
    check(reading.read(path, "2", 300, "uV"), np.round(OTHER), atol=0.5, notes=["of 2 leads lead 2 was taken"])


def test_two_columns_of_integers_that_are_named(tmp_path):
    text = "resp,ecg\n" + "".join(f"{-abs(int(a))},{b:.0f}\n" for a, b in zip(OTHER, UV + 2000, strict=True))
    notes = ["of 2 leads ecg was taken; the others are resp"]
    check(reading.read(write(tmp_path, text), fs=300, unit="uV"), UV + 2000, atol=0.51, notes=notes)


def test_the_minus_sign_of_some_locales(tmp_path):
    text = column(MV, 3).replace("-", "\N{MINUS SIGN}")
    check(reading.read(write(tmp_path, text), fs=300, unit="mV"), atol=0.51)


def test_minutes_are_no_seconds(tmp_path):
    text = "Time (min),ECG (mV)\n" + "".join(f"{i / 300 / 60:.7f},{v:.4f}\n" for i, v in enumerate(MV))
    check(reading.read(write(tmp_path, text)), notes=["the column Time (min) tells the sampling rate, 300 Hz"])


@pytest.mark.parametrize("title", ["ECG, Lead I", "EKG, Ableitung II", ""])
def test_decimal_commas_below_a_title_with_a_comma(tmp_path, title):
    text = f"{title}\n" + column(MV, 3).replace(".", ",")
    notes = ["commas were taken as decimal commas"]
    check(reading.read(write(tmp_path, text), fs=300, unit="mV"), atol=0.51, notes=notes)


@pytest.mark.parametrize("name", ["Time of day", "Seconds of day", "t", "elapsed (s)"])
def test_times_in_seconds_by_other_names(tmp_path, name):
    text = f"{name},ECG (mV)\n" + "".join(f"{i / 300:.6f},{v:.4f}\n" for i, v in enumerate(MV))
    check(reading.read(write(tmp_path, text)), notes=[f"the column {name} tells the sampling rate, 300 Hz"])


def test_rates_a_minute_are_no_times(tmp_path):
    rng = np.random.default_rng(0)
    rows = zip(60 + rng.integers(0, 3, len(MV)), MV, OTHER / 1000, strict=True)
    text = "HR (beats/min),X,Y\n" + "".join(f"{a},{b:.4f},{c:.4f}\n" for a, b, c in rows)
    recording = reading.read(write(tmp_path, text), fs=300, unit="mV", lead="3")
    check(recording, OTHER, atol=0.06, notes=["of 3 leads Y was taken; the others are HR (beats/min), X"])


def test_sensors_side_by_side_have_their_own_times(tmp_path):
    rows = []
    for place in range(2 * len(UV)):
        ecg = f"{place / 300:.6f},{MV[place]:.4f}" if place < len(MV) else ","
        rows.append(f"{ecg},{place / 1000:.6f},{np.sin(place):.4f}\n")
    text = "ECG time (s),ECG (mV),EMG time (s),EMG (mV)\n" + "".join(rows)
    notes = ["of 2 leads ECG was taken", "of ECG (mV), 300 Hz", "of EMG (mV), 1000 Hz"]
    recording = reading.read(write(tmp_path, text))
    assert recording.sampling_rate == 300 and len(recording.signal) == len(MV)
    assert all(any(part in note for note in recording.notes) for part in notes)


def test_quoted_thousands_are_thousands(tmp_path):
    numbers = UV + 2000
    text = "Time (s),ECG (uV)\n" + "".join(f'{i / 300:.6f},"{v:,.0f}"\n' for i, v in enumerate(numbers - 1500))
    check(reading.read(write(tmp_path, text)), numbers - 1500, atol=0.51, notes=["tells the sampling rate, 300 Hz"])


@pytest.mark.parametrize("mark", ["", "1"])
def test_a_last_column_of_few_marks_leaves_names_where_they_are(tmp_path, mark):
    rows = [
        f"{i / 300:.6f},{a:.4f},{b:.4f},{mark if i % 700 == 350 else ''}\n"
        for i, (a, b) in enumerate(zip(OTHER, MV, strict=True))
    ]
    text = "Time (s),Resp,ECG (mV),Event\n" + "".join(rows)
    recording = reading.read(write(tmp_path, text))
    check(recording, MV * 1000, atol=0.06, notes=["of ", "tells the sampling rate, 300 Hz"])


@pytest.mark.parametrize("between", ["\t", " "])
def test_a_date_beside_its_time_leaves_names_where_they_are(tmp_path, between):
    stamps = [f"2026-01-02{between}10:00:{i / 300:09.6f}" for i in range(len(MV))]
    rows = "".join(f"{stamp}{between}{a:.4f}{between}{b:.4f}\n" for stamp, a, b in zip(stamps, OTHER, MV, strict=True))
    text = between.join(["Date", "Time", "Resp", "ECG_mV"]) + "\n" + rows
    recording = reading.read(write(tmp_path, text), unit="mV")
    assert recording.sampling_rate == 300 and np.allclose(recording.signal, MV * 1000, atol=0.06)


def test_days_after_months_across_midnight(tmp_path):
    clock = [86390 + i / 300 for i in range(6000)]
    days = [
        f"03/0{5 + int(at // 86400)}/2026 {int(at % 86400 // 3600):02}:{int(at % 3600 // 60):02}:{at % 60:09.6f}"
        for at in clock
    ]
    rows = "".join(f"{day},{v:.4f}\n" for day, v in zip(days, [*MV, *MV], strict=True))
    recording = reading.read(write(tmp_path, "Time,ECG (mV)\n" + rows))
    assert recording.sampling_rate == 300 and len(recording.signal) == 6000


def test_a_column_called_voltage_has_the_unit_of_the_file(tmp_path):
    text = "Unit: mV\nTime (s),Voltage\n" + "".join(f"{i / 300:.6f},{v:.4f}\n" for i, v in enumerate(MV))
    check(reading.read(write(tmp_path, text)), atol=0.06, notes=["'Voltage' was taken for an ECG", "300 Hz"])


def test_a_name_too_many_is_no_shift(tmp_path):
    rows = "".join(
        f"2026-01-02 10:00:{i / 300:09.6f},{a:.4f},{b:.4f}\n" for i, (a, b) in enumerate(zip(OTHER, MV, strict=True))
    )
    with pytest.raises(UserError, match="does not tell which of"):
        reading.read(write(tmp_path, "Time,Resp,ECG (mV),Event\n" + rows), unit="mV")


def test_gaps_written_as_not_available_after_a_tab(tmp_path):
    rows = "".join(
        f"{i / 300:.6f}\t{'#N/A' if i % 3 else f'{a:.3f}'}\t{b:.4f}\n"
        for i, (a, b) in enumerate(zip(OTHER, MV, strict=True))
    )
    recording = reading.read(write(tmp_path, "Time (s)\tResp\tECG (mV)\n" + rows))
    assert recording.sampling_rate == 300 and np.allclose(recording.signal, MV * 1000, atol=0.06)


def test_a_long_signal_in_a_single_line(tmp_path):
    np.savetxt(tmp_path / "a.txt", np.tile(MV, 4)[None])
    assert len(reading.read(tmp_path / "a.txt", fs=300, unit="mV").signal) == 4 * len(MV)


def test_few_times_of_something_else_tell_no_rate(tmp_path):
    rows = [f"{i / 300:.6f},{f'{0.8 * i:.3f}' if i < 12 else ''},{v:.4f}\n" for i, v in enumerate(MV)]
    recording = reading.read(write(tmp_path, "Time (s),R peak time (s),ECG (mV)\n" + "".join(rows)))
    assert recording.sampling_rate == 300 and np.allclose(recording.signal, MV * 1000, atol=0.06)


def test_units_in_brackets_below_the_names(tmp_path):
    text = "Time,ECG,PPG\n(s),(mV),(V)\n" + "".join(f"{i / 300:.6f},{v:.4f},0.{i % 7}\n" for i, v in enumerate(MV))
    check(reading.read(write(tmp_path, text)), atol=0.06, notes=["of 2 leads ECG was taken", "300 Hz"])


def test_decimal_commas_without_a_sign(tmp_path):
    path = write(tmp_path, column(MV + 2).replace(".", ","))
    check(reading.read(path, fs=300, unit="mV"), UV + 2000, notes=["decimal commas"])


def test_an_index_and_a_gap_are_no_decimals(tmp_path):
    text = table(np.arange(len(UV)), UV + 2000, decimals=0).replace(f"\n7,{UV[7] + 2000:.0f}\n", "\n7,\n")
    expected = UV + 2000
    expected[7] = (expected[6] + expected[8]) / 2
    check(reading.read(write(tmp_path, text), fs=300, unit="uV"), expected, notes=["1 sample was missing"])


def test_a_lead_s_very_name_comes_first(tmp_path):
    path = write(tmp_path, table(OTHER, UV, header="ECG I,I\n"))
    check(reading.read(path, "I", 300, "uV"), notes=["of 2 leads I was taken"])


def test_comments_and_a_named_column(tmp_path):
    text = (
        "# Holter 3\n# sampling rate: 300 Hz\n# filter: 0.5 to 40 Hz\nLead I (mV)\n"
        + column(MV[:999], 6)
        + "# note\n"
        + column(MV[999:])
    )
    path = write(tmp_path, text, "a.txt")
    check(reading.read(path))
    check(reading.read(path, lead="lead i"))
    refused("pass --lead one of Lead I, or", path, lead="V1")
    check(reading.read(write(tmp_path, text.replace("0.5 to 40", "notch 50"))))
    two_units = text.replace("Holter 3", "range (5 V)").replace("Lead I (mV)", "unit: mV\n# unit: uV")
    refused(r"does not tell its unit \(its header says mV and uV\);", write(tmp_path, two_units))


@pytest.mark.parametrize(
    "names, index", [("acc_x,V1,V2", 1), ("V1,II,I", 2), ("V1,MLII,V2", 1), ("Resp,PPG,ECG", 2), ("V1,,V2", 0)]
)
def test_the_lead_that_is_taken(tmp_path, names, index):
    leads = [UV, OTHER, -UV]
    path = write(tmp_path, table(*leads, header=names + "\n"))
    check(reading.read(path, fs=300, unit="uV"), leads[index], notes=["of 3 leads "])


def test_each_lead_has_its_unit(tmp_path):
    path = write(tmp_path, table(T * 1000, UV, OTHER / 1000, UV / 1e6, header="ms,V (uV),II_mV,V1 [V]\n", decimals=9))
    check(reading.read(path, lead="V"), notes=["of 3 leads V was taken; the others are II, V1", "300 Hz"])
    check(reading.read(path), OTHER, notes=["II was", "300 Hz"])
    check(reading.read(path, lead="v1"), notes=["V1 was", "300 Hz"])


def test_no_lead_that_may_be_an_ecg(tmp_path):
    path = write(tmp_path, table(UV, OTHER, header="PPG,Resp\n"))
    refused("holds PPG, Resp, none of which may be an ECG", path, fs=300, unit="uV")


# --- which column, which rate, which lines ---

INDEX = np.arange(len(UV))
NOISE = np.random.default_rng(0).standard_normal(len(UV)) * 30
UNEVEN = np.cumsum(np.random.default_rng(1).integers(2, 6, len(UV)))


@pytest.mark.parametrize(
    "names, columns, expected",
    [
        ("Sample Index,ECG", [INDEX % 256, UV], 1),
        ("label,ECG", [INDEX // 1000, UV], 1),
        ("C3-A2,EOG,ECG", [NOISE, NOISE * 2, UV], 2),
        ("Sound,Chin1-Chin2,EEG EKG1-REF", [OTHER, NOISE, UV], 2),
        ("Heart Rate,ECG", [NOISE / 30 + 80, UV], 1),
        ("HR_bpm,ecgRate,chest_ECG", [NOISE, NOISE, UV], 2),
        ("millis,ecg", [UNEVEN, UV], 1),
        ("packet,seq,EKG", [INDEX // 25, INDEX % 25, UV], 2),
        ("i,ecg", [INDEX % 100, UV], 1),
        ("DII,DI", [OTHER, UV], 1),
        ("V5,LA-RA", [OTHER, UV], 1),
        ("ECG_Status1,Shimmer_ECG_LL-RA_24BIT_CAL", [OTHER, UV], 1),
        ("", [INDEX % 256, UV], 1),
        ("", [INDEX // 1000, UV], 1),
        ("", [UNEVEN, UV], 1),
        ("", [300 - INDEX % 200, UV], 1),
    ],
)
def test_the_column_that_is_an_ecg(tmp_path, names, columns, expected):
    path = write(tmp_path, table(*columns, header=names + "\n" if names else ""))
    recording = reading.read(path, fs=300, unit="uV")
    np.testing.assert_allclose(recording.signal, columns[expected], atol=0.001)
    assert recording.notes


@pytest.mark.parametrize(
    "names, columns, message",
    [
        ("EMG", [UV], "holds EMG, none of which may be an ECG; pass --lead if one is"),
        ("EEG", [UV], "none of which may be an ECG"),
        ("PPG_raw", [UV], "none of which may be an ECG"),
        ("CH1,CH2", [UV, OTHER], "does not tell which of CH1, CH2 is the ECG; pass --lead with its name or number"),
        ("", [UV, OTHER], "does not tell which of lead 1, lead 2 is the ECG; pass --lead"),
        ("PPG,value", [OTHER, UV], "does not tell whether value is the ECG; pass --lead"),
        ("packet", [INDEX % 64], "none of which may be an ECG"),
        ("ECG", [INDEX % 256], "ECG holds numbers that rise and start again, as a counter does, and no ECG"),
        ("ECG", [UNEVEN], "ECG holds numbers that only rise, as times do, and no ECG"),
        ("ECG", [INDEX // 100 % 5], "ECG holds only 5 different numbers, and no ECG"),
        (
            ",".join(f"q{i}" for i in range(12)),
            [np.roll(UV, 40 * i) for i in range(12)],
            "q6, q7 and 4 more is the ECG",
        ),
        (
            ",".join(f"c{i}" for i in range(65)),
            [UV] * 65,
            "has 65 columns, more than an ECG has leads, and its rows do not continue each other; if each row",
        ),
    ],
)
def test_columns_that_are_no_known_ecg(tmp_path, names, columns, message):
    refused(message, write(tmp_path, table(*columns, header=names + "\n" if names else "")), fs=300, unit="uV")


def test_a_channel_of_an_unknown_name_is_taken_alone_and_said(tmp_path):
    path = write(tmp_path, table(UV, header="value\n"))
    check(reading.read(path, fs=300, unit="uV"), notes=["'value' was taken for an ECG, which its name does not say"])


def test_channels_of_an_edf_file(tmp_path):
    names = ["EEG C3-A2", "EOG(L)", "Sound", "EKG1"]
    path = edf(tmp_path, [(name, "uV", x, 300) for name, x in zip(names, [NOISE, NOISE, OTHER, UV], strict=True)])
    check(reading.read(path), atol=0.5, notes=["of 4 leads EKG1 was taken"])
    path = edf(tmp_path, [("EEG C3-A2", "uV", NOISE, 300), ("X1", "uV", UV, 300)])
    refused("does not tell whether X1 is the ECG", path)
    check(reading.read(path, lead="X1"), atol=0.5, notes=["X1 was taken"])


@pytest.mark.parametrize("times, rate", [(T, 300), (T * 1000, None), (UNEVEN / 1000, None)])
def test_a_first_column_that_is_plainly_seconds(tmp_path, times, rate):
    path = write(tmp_path, table(times, UV))
    if rate:
        check(
            reading.read(path, unit="uV"), notes=["the first column, taken for seconds, tells the sampling rate, 300"]
        )
    else:
        refused("does not tell its sampling rate", path, unit="uV")


def test_a_header_and_times_that_disagree(tmp_path):
    path = write(tmp_path, "Sampling rate: 500 Hz\n" + table(T, UV, header="time (s),ECG (uV)\n"))
    refused(r"\(its header says 500 Hz, but its times say 300 Hz\); pass --fs HZ", path)
    check(reading.read(path, fs=300), notes=["its header says 500 Hz, but its times say 300 Hz; --fs 300 was taken"])
    path = write(tmp_path, "Clock: 1000 Hz\n" + table(T, UV, header="time (s),ECG (uV)\n"))
    check(reading.read(path), notes=["the column time (s) tells the sampling rate, 300 Hz"])
    jump = np.where(INDEX < 1500, T, T + 20)
    path = write(tmp_path, "Sampling rate: 300 Hz\n" + table(jump, UV, header="time (s),ECG (uV)\n"))
    check(reading.read(path), notes=["are uneven, with a step of 600"])


@pytest.mark.parametrize(
    "above, columns, note",
    [
        (f"{len(UV)}\n", [UV], "3000 was taken for a header"),
        ("300\n", [MV], "300 was taken for a header"),
        ("1700000000\n300\n", [UV], "1700000000; 300 was taken for a header"),
        (f"{len(UV)} 300\n", [UV], "3000 300 was taken for a header"),
        ("1700000000,300\n", [INDEX, UV], "1700000000,300 was taken for a header"),
        (f"{len(UV)}\nECG\n", [UV], "3000 was taken for a header"),
    ],
)
def test_numbers_above_the_samples(tmp_path, above, columns, note):
    unit = "mV" if columns[0] is MV else "uV"
    for decimals in (0, 4) if unit == "uV" else (4,):
        path = write(tmp_path, above + table(*columns, decimals=decimals))
        check(reading.read(path, fs=300, unit=unit), atol=0.6, notes=[note])


@pytest.mark.parametrize("width", [3, 7, 10, 50])
def test_rows_that_continue_each_other(tmp_path, width):
    lines = [" ".join(f"{x:.0f}" for x in UV[i : i + width]) for i in range(0, len(UV) // width * width, width)]
    recording = reading.read(write(tmp_path, "\n".join(lines)), fs=300, unit="uV")
    check(recording, UV[: len(UV) // width * width], notes=[f"the {width} numbers of each row continue those"])
    lines = [f"{i * width / 300:.5f} {line}" for i, line in enumerate(lines)]
    recording = reading.read(write(tmp_path, "\n".join(lines)), unit="uV")
    assert recording.sampling_rate == pytest.approx(300, rel=1e-3) and len(recording.signal) == len(UV) // width * width


@pytest.mark.parametrize("separator", [",", " "])
@pytest.mark.parametrize("width", [100, 128, 300])
def test_long_rows_that_continue_each_other(tmp_path, width, separator):
    rows = [separator.join(f"{x:.0f}" for x in UV[i : i + width]) for i in range(0, len(UV), width)]
    recording = reading.read(write(tmp_path, "\n".join(rows)), fs=300, unit="uV")
    check(recording, np.round(UV), notes=[f"the {width} numbers of each row continue those"])
    np.random.default_rng(1).shuffle(rows)
    refused(f"has {width} columns.* do not continue", write(tmp_path, "\n".join(rows[:9])), fs=300, unit="uV")


START = datetime.datetime(2024, 1, 31, 23, 59, 55)  # midnight and a month's end come after 5 s
STAMPS = [START + datetime.timedelta(seconds=i / 250) for i in range(len(UV))]
EPOCH = 1_704_190_272


def dated(form, cut=-3, end=""):
    return [stamp.strftime(form)[: cut or None] + end for stamp in STAMPS]


@pytest.mark.parametrize("header", ["", "{0}{1}ECG\n"])
@pytest.mark.parametrize(
    "times, name, separator",
    [
        (dated("%Y-%m-%d %H:%M:%S.%f"), "Timestamp", ","),
        (dated("%Y-%m-%d %H:%M:%S.%f"), "Date Time", " "),
        (dated("%Y-%m-%dT%H:%M:%S.%f", end="Z"), "Datum", ","),
        (dated("%Y-%m-%dT%H:%M:%S.%f", 0, "+01:00"), "recorded", "\t"),
        (dated("%d.%m.%Y %H:%M:%S,%f"), "Zeit", ";"),
        (dated("%d/%m/%Y %I:%M:%S.%f %p", None), "Time", ","),
        (dated("'[%H:%M:%S.%f", end=" 02/01/2024]'"), "Time", ","),
        (dated("%Y-%m-%d,%H:%M:%S.%f"), "Date,Time", ","),
        (dated("%H:%M:%S.%f"), "Uhrzeit", ","),
        ([f"{EPOCH + i / 250:.3f}" for i in range(len(UV))], "x", ","),
        ([EPOCH * 1000 + 4 * i for i in range(len(UV))], "x", ","),
        ([EPOCH * 10**6 + 4000 * i for i in range(len(UV))], "timestamp", ","),
        ([EPOCH * 10**9 + 4_000_000 * i for i in range(len(UV))], "timestamp", " "),
    ],
)
def test_dates_and_times_tell_the_rate(tmp_path, header, times, name, separator):
    rows = "".join(f"{at}{separator}{x:.0f}\n" for at, x in zip(times, UV, strict=True))
    path = write(tmp_path, header.format(name, separator) + rows)
    check(reading.read(path, unit="uV"), np.round(UV), 250, atol=0.6, notes=["tells the sampling rate, 250 Hz"])


@pytest.mark.parametrize(
    "times",
    [
        dated("%Y-%m-%d %H:%M:%S", 0),  # whole seconds
        [EPOCH * 1000 + 4 * i + 9 * (-1) ** i for i in range(len(UV))],  # packets out of order
    ],
)
def test_uneven_dates_are_never_the_signal(tmp_path, times):
    path = write(tmp_path, "".join(f"{at},{x:.0f}\n" for at, x in zip(times, UV, strict=True)))
    refused(r"sampling rate \(the times in the column 1 are uneven\); pass --fs HZ", path, unit="uV")
    check(reading.read(path, fs=250, unit="uV"), np.round(UV), 250, notes=["uneven and were left out"])


def test_a_recording_in_each_row(tmp_path):
    path = write(tmp_path, "\n".join(",".join(f"{x:.0f}" for x in np.roll(UV, i)) for i in range(20)))
    refused(
        "has 3000 columns, more than an ECG has leads, and its rows do not continue each other; if each row is",
        path,
        fs=300,
        unit="uV",
    )


def test_rates_above_those_of_an_ecg(tmp_path):
    fast = np.interp(np.arange(20 * len(UV)) / 20, INDEX, UV).round(3)
    fast = np.tile(fast, 2)
    check(reading.read(write(tmp_path, lines(fast, rate="20 kHz").replace("Rate", "Sampling rate"))), fast, 20_000)


def test_names_that_devices_give(tmp_path):
    labchart = (
        "Interval=\t0.0033333 s\nTimeFormat=\tStartOfBlock\nChannelTitle=\tResp\tChest\nRange=\t10.000 V\t10.000 mV\n"
    )
    path = write(tmp_path, labchart + table(T, OTHER, MV, separator="\t"))
    check(reading.read(path, lead="chest"), rate=300.003, notes=["of 2 leads Chest was taken; the others are Resp"])
    shimmer = "sep=\t\nShimmer_Timestamp_Unix_CAL\tShimmer_GSR_CAL\tShimmer_ECG_LA-RA_CAL\nms\tkOhms\tmV\n"
    path = write(tmp_path, shimmer + table(1.5e12 + T * 1000, OTHER, MV, separator="\t"))
    check(reading.read(path), notes=["Shimmer_ECG_LA-RA_CAL was", "(ms) tells the sampling rate, 300 Hz"])
    bitalino = (
        '# OpenSignals Text File Format\n# {"00:07": {"sensor": ["RESP", "ECG"], "column": ["nSeq", "I1", "A1", "A2"], '
        '"sampling rate": 300, "resolution": [4, 1, 10, 10]}}\n# EndOfHeader\n'
    )
    path = write(tmp_path, bitalino + table(INDEX % 16, 0 * INDEX, OTHER, UV, separator="\t", decimals=0))
    for lead in (None, "ECG", "A2"):
        check(reading.read(path, lead, unit="raw"), np.round(UV), atol=0.6, notes=["A2 ECG was", "as they are"])
    physionet = "'Elapsed time','V5','MLII'\n'hh:mm:ss.mmm','mV','mV'\n"
    rows = "".join(f"'0:{t:06.3f}',{a:.4f},{b:.4f}\n" for t, a, b in zip(T, OTHER / 1000, MV, strict=True))
    check(reading.read(write(tmp_path, physionet + rows)), notes=["MLII was", "Elapsed time tells the sampling rate"])


def test_what_a_header_calls_a_single_column(tmp_path):
    refused("holds EMG, none of which", write(tmp_path, "Signal: EMG\n" + lines(UV)))
    check(reading.read(write(tmp_path, "Signal: ECG\n" + lines(UV)), lead="ecg"))


def test_many_wrong_lines_are_counted(tmp_path):
    text = "".join(f"{x:.3f}\n" + ("*** lost\n" if i % 10 == 5 else "") for i, x in enumerate(UV))
    refused(r"300 lines are not 1 numbers, so export the columns of numbers alone", write(tmp_path, text))


def test_a_signal_of_several_samples_a_frame(tmp_path):
    for count, rate in ((4, 75), (32, 15.5)):
        length = len(UV) // count
        (tmp_path / "a.hea").write_text(
            f"a 2 {rate} {length}\na.dat 16x{count} 1000/mV 16 0 0 0 0 ECG\na.dat 16 10/% 16 0 0 0 0 SpO2\n"
        )
        frames = np.column_stack([UV[: length * count].reshape(length, count), np.full(length, 970)])
        (tmp_path / "a.dat").write_bytes(frames.astype("<i2").tobytes())
        recording = reading.read(tmp_path / "a.hea")
        check(recording, UV[: length * count], rate * count, notes=["of 2 leads ECG was taken"])


@pytest.mark.parametrize("header, data, told", [("R.HEA", "r.dat", "R.DAT"), ("E1.hea", "E1.mat", "E1.mat")])
def test_wfdb_names_in_any_case_and_with_suffixes(tmp_path, header, data, told):
    stored = np.frombuffer(bytes(24), "<i2") if data.endswith(".mat") else UV[:0]
    (tmp_path / data).write_bytes(np.append(stored, UV).astype("<i2").tobytes())
    form = "16+24" if data.endswith(".mat") else "16"
    name = told if data.endswith(".mat") else "R"
    (tmp_path / header).write_text(f"{name} 1 300 {len(UV)}\n{told} {form} 1000/mV 16 0 0 0 0 ECG\n")
    check(reading.read(tmp_path / header))
    (tmp_path / "m.HEA").write_text(f"m/1 1 300 {len(UV)}\n{Path(header).stem} {len(UV)}\n")
    check(reading.read(tmp_path / "m.HEA"))


def test_wfdb_headers_that_hold_no_ecg(tmp_path):
    (tmp_path / "m_layout.hea").write_text("m_layout 2 125 0\n~ 0 200/mV 16 0 0 0 0 II\n~ 0 200/mV 16 0 0 0 0 V\n")
    refused("is the layout of a record in several parts", tmp_path / "m_layout.hea")
    (tmp_path / "n.hea").write_text("n 2 1 100\nn.dat 16 1/bpm 16 0 0 0 0 HR\nn.dat 16 1/% 16 0 0 0 0 SpO2\n")
    (tmp_path / "n.dat").write_bytes(bytes(400))
    refused(r"holds numerics \(HR, SpO2, one each 1 s\) and no ECG; name the record of waveforms", tmp_path / "n.hea")


def test_a_wfdb_header_without_a_gain(tmp_path):
    (tmp_path / "a.hea").write_text(f"a 1 300 {len(UV)}\na.dat 16\n")
    (tmp_path / "a.dat").write_bytes((UV / 5).astype("<i2").tobytes())
    check(reading.read(tmp_path / "a.hea"), atol=5, notes=["tells no gain, so WFDB's 200 per mV was assumed"])


@pytest.mark.parametrize("rate", ["+300", "3e2", "300.", "300/100(5)", "300/300(0)"])
def test_legal_ways_to_write_the_rate_in_a_wfdb_header(tmp_path, rate):
    (tmp_path / "a.dat").write_bytes(UV.astype("<i2").tobytes())
    (tmp_path / "a.hea").write_text(f"a 1 {rate} {len(UV)} 10:11:12\na.dat 16 1000/mV\n")
    check(reading.read(tmp_path / "a.hea"))


@pytest.mark.parametrize(
    "line, message",
    [
        ("a 1 -300 3000\na.dat 16 1000/mV", "its sampling rate is '-300'"),
        ("a 1 abc 3000\na.dat 16 1000/mV", "its sampling rate is 'abc'"),
        ("a 1 0 3000\na.dat 16 1000/mV", "its sampling rate is '0'"),
        ("a 1 inf 3000\na.dat 16 1000/mV", "its sampling rate is 'inf'"),
        (f"a 1 300 3000\na.dat {'1' * 20_000}", "more than 10,000 lines or 1,000 characters in one"),
        ("a/200000 1 300 3000\n" + "s 1\n" * 200_000, "more than 10,000 lines"),
        ("a 1 300 3000\n" + "#" * 5_000_000, "more than 4,000,000 bytes"),
        (f"a 1 300 {10**12}\na.dat 16 1000/mV", "describes more than 1 GB"),
        ("a 1 300 3000\na.dat 16 1..0/mV", "the gain of a signal is '1..0/mV'"),
        ("a 1 300 3000\na.dat 16 200/mV 12 x", "the zero of a signal is 'x'"),
        ("a 1 300 3000\na.dat 1-6 200/mV", "is no signal's file and format"),
    ],
)
def test_wfdb_headers_that_are_not_believed(tmp_path, line, message):
    (tmp_path / "a.dat").write_bytes(UV.astype("<i2").tobytes())
    (tmp_path / "a.hea").write_text(line + "\n")
    start = time.monotonic()
    refused(message, tmp_path / "a.hea")
    assert time.monotonic() - start < 1


def test_a_wfdb_header_without_a_rate(tmp_path):
    (tmp_path / "a.hea").write_text("a 1\na.dat 16 1000/mV\n")
    (tmp_path / "a.dat").write_bytes(UV.astype("<i2").tobytes())
    check(reading.read(tmp_path / "a.hea"), rate=250, notes=["no rate, so WFDB's 250 Hz was assumed"])


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.csv")
    refused("is a pipe and no file, so it is not opened; name a file or -", tmp_path / "pipe.csv")
    refused("is a device and no file", Path("/dev/zero"))
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.csv")  # a whole path may be too long
    refused("is a socket and no file", Path("socket.csv"))
    (tmp_path / "a.hea").write_text("a 1 300 3000\na.dat 16 1000/mV\n")
    os.mkfifo(tmp_path / "A.DAT")
    refused("names a.dat, which is not beside it", tmp_path / "a.hea")
    refused("does not exist", tmp_path / ("x" * 5000))


def test_what_is_too_large(tmp_path, monkeypatch):
    path = write(tmp_path, lines(UV))
    monkeypatch.setattr(bounds, "MOST_TEXT", 9000)
    refused("holds more than 0.009 MB, the most that is read; split it into shorter recordings", path)
    monkeypatch.setattr(bounds, "MOST_BYTES", 5000)
    refused("holds more than 0.005 MB", path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines(UV).encode())))
    with pytest.raises(UserError, match="standard input holds more than"):
        reading.read("-")


def test_a_text_called_dat(tmp_path):
    check(reading.read(write(tmp_path, lines(UV), "a.dat")))


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines(UV).encode())))
    check(reading.read("-"))
    matlab = (PROJECT / "pretrained/example.mat").read_bytes()  # of version 4
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(matlab)))
    assert len(reading.read("-", fs=300).signal) == 9000
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UserError, match="standard input is empty"):
        reading.read("-")


# --- what is cleaned and what is refused ---


def lines(signal, gap="NaN", rate="300 Hz"):
    numbers = "".join(f"{value:.3f}\n" if np.isfinite(value) else f"{gap}\n" for value in signal)
    return f"Rate,{rate}\nUnit,uV\n{numbers}"


@pytest.mark.parametrize("gap", ["", "NaN", "NA", "null", "--", "inf", '""'])
@pytest.mark.parametrize("index", [False, True])
def test_gaps(tmp_path, gap, index):
    missing = np.zeros(len(UV), bool)
    missing[[1000, *range(1500, 1600)]] = True
    at = np.arange(len(UV))
    expected = np.interp(at, at[~missing], UV[~missing])
    fields = [gap if lost else f"{value:.3f}" for lost, value in zip(missing, UV, strict=True)]
    rows = [f"{i};{field}" for i, field in enumerate(fields)] if index else fields
    path = write(tmp_path, "Rate,300 Hz\nUnit,uV\n" + "\n".join(rows) + "\n")
    check(reading.read(path), expected, notes=["101 samples were missing and interpolated"])


def test_gaps_at_the_ends_are_cut_off(tmp_path):
    lost = UV.copy()
    lost[-4:] = lost[0] = np.nan
    lost[7] = np.inf
    expected = UV[1:-4].copy()
    expected[6] = (UV[6] + UV[8]) / 2
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"val": lost[None]})
    notes = ["at the ends 5 samples were missing and were cut off", "1 sample was missing and interpolated"]
    check(reading.read(path, fs=300, unit="uV"), expected, notes=notes)


@pytest.mark.parametrize("step, message", [(9, r"lacks 11% of its samples, up to 0.0 s"), (0, r"up to 1\.0 s")])
def test_too_many_gaps(tmp_path, step, message):
    lost = np.tile(UV, 2)
    lost[slice(1, None, step) if step else slice(600, 901)] = np.nan
    refused(message, write(tmp_path, lines(lost)))
    if not step:
        lost[600] = UV[600]  # 300 samples, 1 s
        assert reading.read(write(tmp_path, lines(lost))).notes == ["300 samples were missing and interpolated"]


@pytest.mark.parametrize("before, after", [(0, 450), (0, 60), (60, 0), (600, 900), (59, 59), (0, 0)])
def test_constant_ends(tmp_path, before, after):
    ends = [np.full(before, 7.5), np.full(after, -3.25)]
    notes = [f"the last {after / 300:.1f} s were constant and were cut off"] if after >= 60 else []
    notes += [f"the first {before / 300:.1f} s were constant and were cut off"] if before >= 60 else []
    signal = np.concatenate([ends[0], UV, ends[1]])
    recording = reading.read(write(tmp_path, lines(signal)))
    check(recording, UV if notes else signal, notes=notes)
    assert recording.begin == (before / 300 if before >= 60 else 0)


def test_times_are_those_of_the_file(tmp_path):
    """Missing and constant samples are cut off before a lead that falls off for a while."""
    signal = np.concatenate([np.full(300, np.nan), np.full(600, 7.5), UV, np.full(1200, 7.5), UV])
    recording = reading.read(write(tmp_path, lines(signal)))
    assert recording.begin == 3 and len(recording.signal) == 2 * len(UV) + 1200
    assert recording.notes[-1] == "4.0 s are flat, at 13.0 s, and left out"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty; export"),
        ("\ufeff\r\n", "holds no lines of numbers and times alone"),
        ("Name,Jane\n", "holds no lines of numbers and times alone"),
        (lines(UV[:0]) + "NaN\nNaN\n", "holds no signal"),
        (lines(np.full(3000, 4.5)), "is constant throughout"),
        (lines(UV[:1499]), r"lasts 5\.0 s; at least 5 s are needed"),
        (lines(np.append(UV[:1200], np.zeros(900))), r"lasts 4\.0 s \(the last 3\.0 s were constant.*\); at least 5 s"),
        (lines(np.repeat([1.0, 2.0], 900)), r"lasts 0\.0 s"),
        (
            lines(UV, rate="40 Hz"),
            "has a sampling rate of 40 Hz for lead 1; at least 50 Hz are needed, so export it anew$",
        ),
        (lines(UV / 100), r"its amplitude of \d+ uV is not that of an ECG in uV; pass --unit mV, or raw"),
        (lines(UV * 100), r"its amplitude of [\d,]{6,7} uV is not that of an ECG in uV; pass --unit raw"),
        (lines(UV) + "lead off\n" + lines(UV), r"has 'lead off' among its numbers \(line 3003\b"),
        (lines(UV) + "1;2\n", "among its numbers"),
        (b"%PDF-1.7\n\0\1\2", "is a PDF, which is not read"),
        (b"PK\3\4" + bytes(50), "is a damaged zip file"),
    ],
)
def test_refusals(tmp_path, text, message):
    refused(message, write(tmp_path, text))


@pytest.mark.parametrize("fs", [float("nan"), float("inf"), -300, 0, 49])
def test_impossible_rates(tmp_path, fs):
    refused("has a sampling rate of .* Hz by --fs; pass --fs from 50 to 1000000", write(tmp_path, lines(UV)), fs=fs)


def test_raw_amplitudes_are_not_checked(tmp_path):
    check(reading.read(write(tmp_path, lines(UV * 100)), unit="raw"), UV * 100, notes=["as 1000 per mV"])


def test_paths(tmp_path):
    refused("is a folder, not a recording; name a recording in it", tmp_path)
    refused("matches no file; name a recording", tmp_path / "*.hea.csv")
    refused("none.csv does not exist; name a recording", tmp_path / "none.csv")
    refused("none.mat does not exist", tmp_path / "none.mat", fs=300)


def test_the_script_says_what_it_read(tmp_path, script, refusal):
    path = write(tmp_path, APPLE + column())
    done = script(tmp_path, "reading.py", path)
    assert done.returncode == 0 and done.stdout == f"{path}: {len(UV) / 512:.1f} s at 512 Hz\n"
    assert "is empty" in refusal(script(tmp_path, "reading.py", write(tmp_path, "", "b.csv")))
