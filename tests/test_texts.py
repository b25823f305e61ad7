"""The steps of the text reader, and what names and numbers mean, each alone."""

import numpy as np
import pytest

import columns
import leads
import texts


@pytest.mark.parametrize(
    "line, rate",
    [
        ("Sampling rate: 300", 300),
        ("sampling_rate=300,filter=0.5-40Hz,notch=50Hz", 300),
        ("Sampling Rate=300.00Hz Cutoff=150Hz", 300),
        ("300 samples/s, 12 bit", 300),
        ("ADC: 12 bit, 300 samples per second", 300),
        ("250 sps", 250),
        ("1 msec/sample", 1000),
        ("4 ms per sample", 250),
        ("Interval=\t0.001 s", 1000),
        ("Interval=0.001 s", 1000),
        ("Sampling interval (ms): 4", 250),
        ('{"device": {"sampling rate": 1000, "resolution": [4, 1]}}', 1000),
        ('{"samplingFrequency": 512.4, "notch": 50}', 512.4),
        ("fs_hz,250", 250),
        ("fs 300", 300),
        ("sampled at 250 Hz, notch 50 Hz", 250),
        ("300 Hz sampling, low pass 100 Hz", 300),
        ("Sample rate: 1 kHz", 1000),
        ("Sample rate (kHz): 1", 1000),
        ("Sampling rate: 1,000 Hz", 1000),
        ("Sampling rate (samples/sec): 300", 300),
        ("Messrate;510,227 Hertz", 510.227),
        ("Fréquence d'échantillonnage : 500 Hz", 500),
        ("采样率: 300 Hz", 300),
        ("Rate,300 Hz", 300),
        ("Baud rate: 9600, fs = 300", 300),
        ("Rate: 72 bpm", None),
        ("Heart rate: 72", None),
        ("Number of samples: 3000", None),
        ("Notch: 50 Hz", None),
        ("Filter 0.05-150 Hz", None),
        ("Clock: 1000 Hz", None),
        ("Bandwidth,150 Hz", None),
        ("Frequency: 150 Hz", None),
        ("frame rate 25 fps", None),
        ("RR interval: 0.8 s", None),
        ("Original sampling rate: 1000 Hz", None),
        ("ECG in mV, low-pass 100 Hz, sampling rate 256 Hz", 256),
        ("Filter: 0.05-150 Hz; Sampling: 256 Hz; unit: mV", 256),
        ("info: bandwidth 0.05-150 Hz, sampling rate 256 Hz", 256),
        ("Notch: 50 Hz, Sampling: 500 Hz", 500),
        ("Mains: 60 Hz Sampling: 250 Hz", 250),
        ("300 Hz sampling rate", 300),
        ("300 Hz sampled", 300),
        ("Downsampled from 512 Hz to 256 Hz", 256),
        ("Acc sampling rate: 100 Hz", None),
        ("Respiration sample rate,100 Hz", None),
        ("ECG sampling rate: 250 Hz; ACC sampling rate: 50 Hz", 250),
        ("Abtastrate: 0,5 kHz", 500),
        ("Channels: ECG, Resp. Sampling rate: 300 Hz", 300),
        ("Simultaneous ECG, PPG and respiration sampled at 300 Hz", 300),
        ("ECG, ACC: sampling rate 300 Hz", 300),
        ("Signals: ECG, EMG (sampling rate 300 Hz)", 300),
        ("Philips Respironics Alice 6 - Sampling rate: 300 Hz", 300),
        ("According to protocol 3 sampled at 300 Hz", 300),
        ("Abtastrate: 1,0 kHz", 1000),
        ("Sampling rate: 1 kS/s", 1000),
        ("Sampling rate [1/s]: 250", 250),
        ("500 Hz sampling rate, 1000 units/mV", 500),
        ("300 Hz sampling rate, 1000 samples per page", 300),
        ("Recorded with 500 Hz sampling rate in 2021", 500),
        ("300 Hz sampling rate, 12 bit", 300),
        ("250 Hz sampling, 12 bit", 250),
        ("300 Hz (sampling rate)", 300),
        ("Low pass: 150 Hz\tSampling rate (Hz): 500", 500),
        ("Low-pass 100 Hz sampling interval 4 ms", 250),
        ("ECG samples from Polar H10, bandwidth 0.5 to 100 Hz, sampling rate 130 Hz", 130),
        ("downsampled from 1 kHz", None),
        ("Sampling rates: ACC 100 Hz, ECG 250 Hz", None),
    ],
)
def test_rates_in_words_of_sampling(line, rate):
    assert texts.rate([line, "Mains: 60 Hz"]) == (rate, "")


def test_several_rates_are_none():
    assert texts.rate(["Sampling rate: 300 Hz", "Sampling rate: 50 Hz"]) == (None, "its header says 50 and 300 Hz")
    assert texts.rate(["Sampling rate: 300 Hz", "ACC sampling rate: 50 Hz"]) == (300, "")


@pytest.mark.parametrize(
    "lines, unit",
    [
        (["Unit,µV"], "µV"),
        (["amplitude in mV"], "mV"),
        (["Units: microvolts"], "microvolts"),
        (["Unit: uV", "range (5 V)", "Gain: 10 mm/mV"], "uV"),
        (["Gain: 200 adu/mV"], None),
        (["1 mV = 200"], None),
        (["Resolution (uV): 2.5"], None),
    ],
)
def test_units_are_not_those_of_scales(lines, unit):
    assert texts.voltage(lines) == (unit, "")


@pytest.mark.parametrize(
    "header, width, expected, rest",
    [
        (["Rate: 5", "time,ECG"], 2, ["time", "ECG"], 1),
        (["Time,EMG,ECG", "s,kOhms,mV"], 3, ["Time (s)", "EMG", "ECG (mV)"], 0),
        (["Sample Rate,300 Hz", "s,mV"], 2, ["s", "mV"], 1),
        (["Unit,mV"], 2, ["", ""], 1),
        (["Lead I (mV)"], 1, ["Lead I (mV)"], 0),
        (["3.3 ms/sample"], 1, [""], 1),
        (["Lead,Lead I", "Unit,µV"], 1, ["Lead I"], 2),
        (["Sensor type: PPG"], 1, ["PPG"], 1),
    ],
)
def test_names_of_columns(header, width, expected, rest):
    told, left = texts.names(header, ",", width)
    assert told == expected and len(left) == rest


def test_the_body_begins_where_a_run_of_numbers_does():
    rows = [str(i) for i in range(30)]
    assert texts.split(["3000", "ECG", *rows], "a") == 2
    assert texts.split(["ECG", "", *rows[:3], "", *rows], "a") == 2
    assert texts.split(["ECG", "1", "2"], "a") == 1


@pytest.mark.parametrize(
    "field, expected",
    [
        ("1.5e2", 150),
        ("'0:01.250'", 1.25),
        ("1:00:01.5", 3601.5),
        ("[00:00:02.000]", 2),
        ("x", None),
        ("26-1-2", None),
    ],
)
def test_numbers_and_clocks(field, expected):
    assert texts.number(field) == expected
    assert np.isnan(texts.number("N/A")) and np.isnan(texts.number("2026-01-02"))


@pytest.mark.parametrize(
    "kind, names",
    [
        (
            "ecg",
            "ECG,EKG1,ecg_raw,EEG EKG-REF,Chest ECG,I,II,DII,MLII,LA-RA,V1,aVF,Lead III,MDC_ECG_LEAD_V2,CH2 ECG,ЭКГ",
        ),
        (
            "ecg",
            "ECG [ADC counts],Lead I (count),II (raw values)",
        ),
        (
            "beside",
            "Heart Rate,HR,ECG rate,ECGRate,RR (ms),label,Sample Index,packet,ECG_Status1,event,timestamp,R-peaks,"
            "ECG offset removed,ECG count,ECGRate (value)",
        ),
        (
            "other",
            "C3-A2,Fp1,EOG(L),E1-M2,EMG1,Chin1-Chin2,Resp,Airflow,SpO2,Pleth,PPG_raw,pcg,Sound,acc_x,ABP,Temp,EEG",
        ),
        ("", "signal,value,CH1,lead 1,x,Channel 2,mV,A0"),
    ],
)
def test_kinds_of_channels(kind, names):
    assert {name: leads.kind(name) for name in names.split(",")} == dict.fromkeys(names.split(","), kind)


def test_numbers_that_are_no_signal():
    at = np.arange(3000)
    noise = np.random.default_rng(0).standard_normal(3000)
    assert leads.no_signal(at**2) == leads.RISING
    assert leads.no_signal(-at) == "numbers that only fall"
    for counter in (at % 256, -(at % 100), (7 * at) % 1024, at % 17, (100 * at) % 1024):
        assert "start again" in leads.no_signal(counter)
    assert "different numbers" in leads.no_signal(at // 100 % 7)
    assert leads.no_signal(noise) is None and leads.no_signal(np.round(noise * 10)) is None


def test_rows_that_continue():
    wave = np.cumsum(np.random.default_rng(0).standard_normal(3000))
    rows = wave.reshape(-1, 6)
    assert columns.continues([""] * 6, rows)
    assert not columns.continues(["I", "II", "III", "V1", "V2", "V3"], rows)
    assert not columns.continues([""] * 3, np.column_stack([wave] * 3))
    assert columns.continues([""] * 300, wave.reshape(-1, 300))
    assert not columns.continues([""] * 300, np.random.default_rng(1).permutation(wave.reshape(-1, 300)))
    assert not columns.continues([""] * 3, np.column_stack([wave, -wave, wave + 9]))


def test_rates_of_times():
    at = np.arange(3000)
    assert columns.rate_of_times(0, "time (s)", at / 300) == ("the column time (s)", 300)
    assert columns.rate_of_times(0, "", at / 300)[1] == 300
    assert columns.rate_of_times(1, "", at / 300) is None and columns.rate_of_times(0, "", at * 4.0) is None
    assert columns.rate_of_times(0, "millis", at * 4.0) == ("the column millis", 250)
    assert columns.rate_of_times(0, "time", at * 4.0)[1] == 250 and columns.rate_of_times(0, "time", at * 1.0) is None
    assert columns.rate_of_times(0, "s", at / 30, width=10)[1] == 300
    assert columns.rate_of_times(0, "time", at, width=100) is None  # rows may be counted
    assert columns.rate_of_times(3, "", at / 250, clock=True) == ("column 4, of times of day,", 250)
    for unit in (1, 1e3, 1e6, 1e9):
        assert columns.rate_of_times(0, "", 1.7e9 * unit + at * unit / 250)[1] == 250


@pytest.mark.parametrize(
    "line, expected",
    [
        ("2026-01-02 00:00:01.5,7", "63902995201.500000,7"),
        ("2/1/2026 00:00:01 -1234", "63902995201.000000 -1234"),
        ("13/1/2026 1:00:00 PM;7", "63903992400.000000;7"),
        ("2026-01-02T00:00:01+0100,7", "63902995201.000000,7"),
        ("[00:00:01.5 02/01/2026],7", "63902995201.500000,7"),
        ("2026-01-02 00:00:01,500;7", "63902995201.500000;7"),
        ("2026-01-02 00:00:01,500", "63902995201.000000,500"),
        ("2026-13-32 00:00:01,7", "2026-13-32 00:00:01,7"),
        ("00:00:01.5,7", "00:00:01.5,7"),
    ],
)
def test_dates_become_seconds(line, expected):
    assert texts.seconds(line) == expected


def test_a_single_time_is_no_column_of_even_times():
    _, notes = texts.read(b"0\x0b0:0\t0", "x.csv")
    assert "the times in the column 2 are uneven and were left out" in notes


@pytest.mark.parametrize("between", [",", ";", "\t", " "])
@pytest.mark.parametrize("decimal", [".", ","])
def test_long_texts_are_read_the_quick_way_with_the_same_numbers(between, decimal, monkeypatch):
    monkeypatch.setattr(texts, "FIRST_BYTES", 5000)
    rng = np.random.default_rng(0)
    rows = [[f"{place / 250:.3f}", f"{value:.4f}"] for place, value in enumerate(rng.normal(0, 1, 3000))]
    rows[2000][1] = ""  # a gap
    if between == ",":
        decimal = "."
    if between == " ":
        rows = [row[1:] if row[1] else ["nan"] for row in rows]
    lines = ["time (s);ECG (mV)".replace(";", between) if len(rows[0]) > 1 else "ECG (mV)"]
    lines += [between.join(row).replace(".", decimal) for row in rows]
    content = "\n".join(lines).encode()
    asked = []
    real = texts.quickly
    monkeypatch.setattr(texts, "quickly", lambda *each: asked.append(real(*each)) or asked[-1])
    (quick,), notes = texts.read(content, "x.csv")
    (slow,), same = texts.read(content, "x.csv", whole=True)
    assert len(asked) == 1 and asked[0] is not None and notes == same
    np.testing.assert_array_equal(quick.load(), slow.load())
    assert len(quick.load()) == 3000 and (quick.rate, quick.unit, quick.name) == (slow.rate, slow.unit, slow.name)


@pytest.mark.parametrize("wrong", ["Dear sir", "1,2,3", "0:00:12,5"])
def test_what_is_no_number_in_a_long_text_is_dealt_with_as_in_a_short_one(wrong, monkeypatch):
    lines = [f"{place},{np.sin(place):.4f}" for place in range(3000)]
    lines[2500] = wrong
    content = "\n".join(["sample,ECG (mV)", *lines]).encode()

    def told():
        try:
            return [channel.load().tolist() for channel in texts.read(content, "x.csv")[0]]
        except texts.UserError as error:
            return str(error)

    slow = told()
    monkeypatch.setattr(texts, "FIRST_BYTES", 5000)
    assert told() == slow
