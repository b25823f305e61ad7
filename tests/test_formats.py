"""What is read from each format beyond text, EDF and WFDB (test_reading.py), and what is refused by its name."""

import builtins
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
from test_reading import FS, MV, OTHER, UV, T, check, refused, write

import bounds
import reading


def test_numpy(tmp_path):
    np.save(tmp_path / "a.npy", UV)
    check(reading.read(tmp_path / "a.npy", fs=FS, unit="uV"))
    refused("does not tell its sampling rate or unit", tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.stack([OTHER, UV]))
    check(reading.read(tmp_path / "b.npy", lead="2", fs=FS, unit="uV"), notes=["of 2 leads lead 2"])
    refused("which of lead 1, lead 2 is the ECG", tmp_path / "b.npy", fs=FS, unit="uV")
    np.save(tmp_path / "rows.npy", np.tile(UV, (100, 1)))
    refused("has 100 rows, more than an ECG has leads", tmp_path / "rows.npy")
    np.save(tmp_path / "o.npy", np.array([{}, 1], object))
    refused("holds Python objects, which are not read", tmp_path / "o.npy")
    write(tmp_path, b"\x93NUMPY\1\0", "cut.npy")
    refused("is a damaged NumPy file", tmp_path / "cut.npy")


def test_numpy_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", ecg=MV, fs=300, unit="mV", labels=np.arange(len(UV)) // 1000)
    check(reading.read(tmp_path / "a.npz"), notes=["of 2 leads ecg was taken; the others are labels"])
    np.savez(tmp_path / "b.npz", time=T, ECG=UV)
    check(reading.read(tmp_path / "b.npz", unit="uV"), notes=["the column time tells the sampling rate, 300 Hz"])
    np.savez(tmp_path / "c.npz", x=np.stack([OTHER, UV], 1), sampling_rate=300.0, lead_names=np.array(["V1", "I"]))
    check(reading.read(tmp_path / "c.npz", unit="uV"), notes=["of 2 leads I was taken"])
    np.savez(tmp_path / "d.npz", few=np.arange(9))
    refused(r"holds few of shape \(9,\); expected an array", tmp_path / "d.npz")


def test_hdf5(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("rec")
        for name, x, rate, unit in (("ACC", np.zeros(500), 50, "g"), ("ECG", MV, 300, "mV")):
            data = group.create_dataset(name, data=x)
            data.attrs["sampling_rate"], data.attrs["units"] = rate, unit
    check(reading.read(tmp_path / "a.h5"), notes=["of 2 leads ECG was taken; the others are ACC"])
    refused("'g' is none", tmp_path / "a.h5", lead="ACC")
    with h5py.File(tmp_path / "v.mat", "w", userblock_size=512) as file:
        file["val"] = UV[:, None]
    content = (tmp_path / "v.mat").read_bytes()
    write(tmp_path, b"MATLAB 7.3 MAT-file " + content[20:], "v.mat")
    check(reading.read(tmp_path / "v.mat", fs=FS), notes=["no header, so its unit was taken to be 1000 per mV"])
    write(tmp_path, content[512:900], "cut.h5")
    refused("is a damaged HDF5 file", tmp_path / "cut.h5")


def sampled(code, unit, x, factor=0.5, origin=100, **more):
    data = " ".join(f"{(value - origin) / factor:.3f}" for value in x)
    told = {"origin": {"value": origin, "unit": unit}, "period": 1000 / 300, "factor": factor, "dimensions": 1}
    return {"code": {"coding": [{"code": code}]}, "valueSampledData": told | {"data": data} | more}


def test_json_of_fhir(tmp_path):
    parts = [sampled("131330", "uV", OTHER), sampled("131329", "uV", UV)]
    observation = {"resourceType": "Observation", "code": {"text": "ECG"}, "component": parts}
    for told in (observation, {"resourceType": "Bundle", "entry": [{"resource": observation}]}):
        path = write(tmp_path, json.dumps(told), "a.json")
        check(reading.read(path), notes=["of 2 leads Lead I was taken; the others are Lead II"])
    one = sampled("MDC_ECG_LEAD_I", "mV", MV, 1e-3, 0, period=None, interval=1 / 300, intervalUnit="s")
    one["valueSampledData"]["data"] += " E"
    check(
        reading.read(write(tmp_path, json.dumps(one), "b.json")),
        atol=0.01,
        notes=["1 samples were missing and were cut off"],
    )
    refused(
        "has samples of several dimensions, which are not read; save each lead alone",
        write(tmp_path, json.dumps(sampled("131329", "uV", UV, dimensions=2)), "c.json"),
    )


def test_several_fhir_recordings_of_one_lead_are_not_one(tmp_path):
    observations = [{"resource": {"resourceType": "Observation", "component": [sampled("131329", "uV", UV)]}}] * 3
    path = write(tmp_path, json.dumps({"resourceType": "Bundle", "entry": observations}), "a.json")
    refused("holds 3 recordings of Lead I; save each alone", path)


def test_pieces_of_a_lead_in_one_fhir_observation_follow_each_other(tmp_path):
    pieces = [sampled("131329", "uV", UV[start : start + 1000]) for start in range(0, len(UV), 1000)]
    path = write(tmp_path, json.dumps({"resourceType": "Observation", "component": pieces}), "a.json")
    check(reading.read(path))


def test_arrays_of_the_same_name_in_several_groups(tmp_path):
    beside = {"fs": 300, "unit": "uV"}
    told = beside | {"ppg": {"values": list(OTHER)}, "ecg": {"values": list(UV)}}
    for order in (told, dict(reversed(told.items()))):
        path = write(tmp_path, json.dumps(order), "a.json")
        check(reading.read(path), notes=["of 2 leads ecg/values was taken; the others are ppg/values"])
    told = beside | {"leads": {lead: {"samples": list(UV if lead == "I" else OTHER)} for lead in ("V6", "I", "II")}}
    path = write(tmp_path, json.dumps(told), "a.json")
    check(reading.read(path), notes=["of 3 leads I/samples was taken; the others are V6/samples, II/samples"])
    check(reading.read(path, lead="II"), OTHER, notes=["of 3 leads II/samples was taken"])
    days = {day: {"fs": rate, "unit": "uV", "ecg": list(UV)} for day, rate in (("monday", 300), ("tuesday", 250))}
    path = write(tmp_path, json.dumps(days), "a.json")
    refused("holds several recordings, monday/ecg, tuesday/ecg; pass --lead with the name of one", path)
    check(reading.read(path, lead="tuesday/ecg"), rate=250, notes=["of 2 leads tuesday/ecg was taken"])
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, numbers in (("ECG", UV), ("PPG", OTHER)):
            file.create_dataset(f"{name}/data", data=numbers).attrs["unit"] = "uV"
        file.attrs["sampling_rate"] = 300
    check(reading.read(tmp_path / "a.h5"), notes=["of 2 leads ECG/data was taken"])


def test_the_rate_of_another_sensor_is_not_taken(tmp_path):
    told = {"ecg": {"unit": "uV", "ecg": list(UV)}, "acc": {"info": {"sampling_rate": 52}, "x": list(OTHER)}}
    path = write(tmp_path, json.dumps(told), "a.json")
    refused("does not tell its sampling rate; pass --fs HZ", path)
    check(reading.read(path, fs=300), notes=["of 2 leads ecg was taken"])
    flat = {"acc_sampling_rate": 52, "acc": list(OTHER), "ecg": list(UV), "unit": "uV"}
    refused("does not tell its sampling rate; pass --fs HZ", write(tmp_path, json.dumps(flat), "a.json"))
    for told in (
        {"time": [place / 300 for place in range(len(UV))], "signals": {"ecg": list(UV), "unit": "uV"}, "fs": 300},
        {"signal": {"ecg": list(UV)}, "meta": {"fs": 300, "unit": "uV", "rpeaks": list(range(0, 3000, 10))}},
    ):
        assert reading.read(write(tmp_path, json.dumps(told), "a.json")).sampling_rate == 300
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("ecg", data=UV).attrs["unit"] = "uV"
        file.create_dataset("acc", data=OTHER).attrs["sampling_rate"] = 100
    refused("does not tell its sampling rate; pass --fs HZ", tmp_path / "b.h5")
    told = {"device": {"sampling_rate": 300}, "data": {"unit": "uV", "ecg": list(UV)}}
    check(reading.read(write(tmp_path, json.dumps(told), "a.json")))


def test_settings_of_one_name_in_several_groups_are_a_doubt(tmp_path):
    told = {"info": {"ecg": {"fs": 250}, "ppg": {"fs": 64}}, "signals": {"ecg": list(UV), "ppg": list(OTHER)}}
    path = write(tmp_path, json.dumps(told | {"unit": "uV"}), "a.json")
    refused(r"rate \(its header says 64 and 250 Hz\)", path)
    check(reading.read(path, fs=300), notes=["of 2 leads ecg was taken", "--fs 300 was taken"])


def test_packets_are_one_signal(tmp_path):
    packets = [
        {"timestamp": 10 * place, "ecg": list(UV[start : start + 15])} for place, start in enumerate(range(0, 3000, 15))
    ]
    path = write(tmp_path, json.dumps({"samplingRate": 300, "unit": "uV", "data": packets}), "a.json")
    recording = reading.read(path)
    np.testing.assert_array_equal(recording.signal, UV)
    assert "the 15 numbers of each row of ecg continue those of the row before" in recording.notes
    np.savez(tmp_path / "a.npz", ecg=UV.reshape(300, 10), fs=300)
    assert len(reading.read(tmp_path / "a.npz", unit="uV").signal) == len(UV)


def test_rows_of_people_are_no_packets(tmp_path):
    rows = np.stack([np.roll(UV, 37 * place) * np.hanning(len(UV)) for place in range(32)])
    np.savez(tmp_path / "a.npz", ecg=rows, fs=300)
    assert len(reading.read(tmp_path / "a.npz", unit="uV").signal) == len(UV)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "b.npz", ecg=UV, fs=300, covariance=rng.normal(size=(100, 100)), more=rng.normal(size=(20, 20)))
    check(reading.read(tmp_path / "b.npz", unit="uV"))


@pytest.mark.parametrize("names", [("raw", "filtered"), ("lead1", "lead2"), ("ch1", "ch2")])
def test_groups_of_one_recording_are_no_recordings(tmp_path, names):
    told = {name: {"ecg": list(numbers)} for name, numbers in zip(names, (UV, OTHER), strict=True)}
    path = write(tmp_path, json.dumps(told | {"fs": 300, "unit": "uV"}), "a.json")
    check(reading.read(path), notes=[f"of 2 leads {names[0]}/ecg was taken"])


def test_times_as_dates_and_texts(tmp_path):
    begin = np.datetime64("2026-01-02T23:59:59", "ms")
    stamps = begin + (np.arange(len(UV)) * 4).astype("timedelta64[ms]")
    np.savez(tmp_path / "a.npz", time=stamps, ecg=UV)
    check(reading.read(tmp_path / "a.npz", unit="uV"), rate=250, notes=["tells the sampling rate, 250 Hz"])
    told = {"time": [str(each).replace("T", " ") for each in stamps], "ecg": list(UV), "unit": "uV"}
    path = write(tmp_path, json.dumps(told), "a.json")
    check(reading.read(path), rate=250, notes=["tells the sampling rate, 250 Hz"])
    np.savez(tmp_path / "b.npz", time_ns=np.arange(len(UV)) * 4_000_000, ecg=UV)
    check(reading.read(tmp_path / "b.npz", unit="uV"), rate=250, notes=["tells the sampling rate, 250 Hz"])


def test_json_of_devices(tmp_path):
    told = {"startTime": "2026", "waveformSamples": list(UV * 10), "samplingFrequencyHz": "300", "scalingFactor": 10000}
    check(reading.read(write(tmp_path, json.dumps({"ecgReadings": [told]}), "fitbit.json")))
    path = write(tmp_path, json.dumps({"ecgReadings": [told, told]}), "two.json")
    refused("does not tell which of recording of 2026, recording of 2026 is the ECG; pass --lead", path)
    check(reading.read(path, lead="2"), notes=["of 2 leads"])
    told = {"status": 0, "body": {"signal": list(UV), "sampling_frequency": 300}}
    notes = ["'signal' was taken for an ECG", "taken to be µV, as Withings writes them"]
    check(reading.read(write(tmp_path, json.dumps(told), "withings.json")), notes=notes)


def test_other_json(tmp_path):
    path = write(tmp_path, json.dumps({"ecg": list(MV), "fs": 300, "unit": "mV", "notch": 50}), "a.json")
    check(reading.read(path))
    rows = [{"t": t, "ecg": x} for t, x in zip(T, UV, strict=True)]
    check(reading.read(write(tmp_path, json.dumps(rows), "a.json"), unit="uV"), notes=["the column t tells"])
    check(reading.read(write(tmp_path, json.dumps(list(UV)), "a.json"), fs=FS, unit="uV"))
    refused("is a damaged JSON file", write(tmp_path, '{"a": [1,', "a.json"))
    refused("holds no arrays; expected an array", write(tmp_path, '{"a": "b"}', "a.json"))


AECG = (
    '<?xml version="1.0"?><AnnotatedECG xmlns="urn:hl7-org:v3"><component><series><component><sequenceSet>'
    '<component><sequence><code code="TIME_ABSOLUTE"/><value><head value="2026"/>'
    '<increment value="{step}" unit="{second}"/></value></sequence></component>{leads}'
    "</sequenceSet></component></series></component></AnnotatedECG>"
)


def aecg_lead(code, x):
    digits = " ".join(f"{value / 2 - 5:.1f}" for value in x)
    return (
        f'<component><sequence><code code="MDC_ECG_LEAD_{code}"/><value><origin value="10" unit="uV"/>'
        f'<scale value="2" unit="uV"/><digits>{digits}</digits></value></sequence></component>'
    )


@pytest.mark.parametrize("step, second, encoding", [(1 / 300, "s", "utf-8"), (1000 / 300, "ms", "utf-16")])
def test_annotated_ecg(tmp_path, step, second, encoding):
    leads = aecg_lead("II", OTHER) + aecg_lead("I", UV)
    text = AECG.format(step=step, second=second, leads=leads).replace('"1.0"', f'"1.0" encoding="{encoding}"')
    path = write(tmp_path, text, "a.xml", encoding)
    check(reading.read(path), atol=0.2, notes=["of 2 leads MDC_ECG_LEAD_I was taken; the others are MDC_ECG_LEAD_II"])
    check(reading.read(path, lead="II"), OTHER, atol=0.2, notes=["of 2 leads MDC_ECG_LEAD_II"])


def block(name, data):
    block = name + struct.pack("<I", len(data)) + data
    return block + struct.pack("<I", sum(block))


def test_alivecor(tmp_path):
    content = (
        b"ALIVE\0\0\0\4\0\0\0" + block(b"info", bytes(9)) + block(b"fmt ", struct.pack("<BHHBH", 1, 300, 500, 0, 0))
    )
    content += block(b"ecg ", (UV * 2).astype("<i2").tobytes()) + block(b"ecg2", (OTHER * 2).astype("<i2").tobytes())
    path = write(tmp_path, content, "a.atc")
    check(reading.read(path), notes=["of 2 leads I was taken; the others are II"])
    check(reading.read(path, lead="II"), OTHER, atol=0.51, notes=["of 2 leads II was taken"])
    check(reading.read(path, unit="raw"), UV * 2, notes=["of 2", "as they are"])
    refused(r"is a damaged AliveCor file \(it ends within a block", write(tmp_path, content[:-900], "b.atc"))
    refused(r"damaged AliveCor file \(it lacks", write(tmp_path, content[: 12 + 21 + 20], "b.atc"))
    flipped = bytearray(content)
    flipped[200] ^= 1
    refused("the checksum of its block 'ecg' is wrong", write(tmp_path, bytes(flipped), "b.atc"))


def test_leads_of_alivecor_s_twelve(tmp_path):
    fmt = block(b"fmt ", struct.pack("<BHHBH", 1, 300, 500, 0, 0))
    ids = [b"ecg ", *(b"ecg" + digit.encode() for digit in "23456789abc")]
    leads = b"".join(block(name, (UV * 2 + 2 * i).astype("<i2").tobytes()) for i, name in enumerate(ids))
    path = write(tmp_path, b"ALIVE\0\0\0\5\0\0\0" + fmt + leads, "a.atc")
    for i, lead in enumerate(["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]):
        check(reading.read(path, lead=lead), UV + i, notes=[f"of 12 leads {lead} was taken"])


def compressed(element):
    packed = zlib.compress(element)
    return struct.pack("<II", 15, len(packed)) + packed


def matlab_array(array_class, inside, name=b"", shape=(1, 1)):
    """An element of MATLAB's format 5: flags, shape, name, and what is in the array."""
    content = struct.pack("<IIII", 6, 8, array_class, 0) + struct.pack("<IIii", 5, 8, *shape)
    content += struct.pack("<HH4s", 1, len(name), name) + inside
    return struct.pack("<II", 14, len(content)) + content


def test_matlab_files_of_strangers(tmp_path):
    """Cells in cells would overflow the stack within SciPy; what is not `val` is not loaded."""
    scipy.io.savemat(tmp_path / "a.mat", {"ecg": UV, "fs": 300.0, "cells": np.array([[1], ["a"]], object)})
    refused("has no variable 'val' but ecg, fs, cells; save the signal under that name", tmp_path / "a.mat")
    start = (tmp_path / "a.mat").read_bytes()[:128]
    nested = struct.pack("<II", 14, 0)
    for _ in range(5000):
        nested = matlab_array(1, nested)
    for pack in (bytes, compressed):
        cells, signal = pack(matlab_array(1, nested, b"val")), pack(matlab_array(1, nested, b"abc"))
        refused("holds cells in 'val'; save an array of numbers", write(tmp_path, start + cells, "b.mat"))
        signal += pack(matlab_array(10, struct.pack("<II", 3, 6000) + UV.astype("<i2").tobytes(), b"val", (1, 3000)))
        check(reading.read(write(tmp_path, start + signal, "c.mat"), fs=FS), notes=["1000 per mV"])
    zeros = matlab_array(9, struct.pack("<II", 1, 1_300_000_000) + bytes(9000), b"val", (1, 1_300_000_000))
    told = zeros[:4] + struct.pack("<I", 1_300_000_060) + zeros[8:]  # the array has room for them, as it says
    for pack in (bytes, compressed):
        refused("more than there is room for", write(tmp_path, start + pack(zeros), "d.mat"))
        refused("unpacks to more than 1 GB, the most that is read", write(tmp_path, start + pack(told), "d.mat"))
    refused("is not a MATLAB file", write(tmp_path, start[:127] + b"M" + compressed(zeros)[:40], "e.mat"))


def test_what_unpacks_to_too_much(tmp_path, monkeypatch):
    import h5py

    monkeypatch.setattr(bounds, "MOST_BYTES", 10_000_000)
    np.savez_compressed(tmp_path / "a.npz", ecg=np.zeros(2_000_000))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ecg", shape=(10**12,), dtype="f8", compression="gzip")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/workbook.xml", bytes(11_000_000))
    for name in ("a.npz", "a.h5", "a.xlsx"):
        assert (tmp_path / name).stat().st_size < 100_000
        refused("unpacks to more than 10 MB, the most that is read", tmp_path / name)


def test_hdf5_does_not_lead_to_other_files(tmp_path):
    import h5py

    (tmp_path / "secret").write_bytes(bytes(24_000))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ecg", shape=(3000,), dtype="f8", external=[(str(tmp_path / "secret"), 0, 24_000)])
    refused("keeps ecg in other files, which are not read", tmp_path / "a.h5")


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas as pd

    table = pd.DataFrame({"time": pd.to_datetime(T * 1e9), "ECG (mV)": MV, "name": ["x"] * len(UV)})
    table.to_parquet(tmp_path / "a.parquet")
    check(
        reading.read(tmp_path / "a.parquet"),
        notes=["tells the sampling rate, 300 Hz", "without numbers were left out: name"],
    )


def test_excel(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["time (s)", "ECG (mV)"], *zip(T.tolist(), MV.tolist(), strict=True)]:
        book.active.append(row)
    book.create_sheet("Notes")
    book.save(tmp_path / "a.xlsx")
    check(
        reading.read(tmp_path / "a.xlsx"),
        notes=["tells the sampling rate", "the first sheet was read; the others are Notes"],
    )


def dicom_file(first, second, rate, **changes):
    """The bytes of a DICOM file of leads II and I, signals (samples,) in µV; changes: of its elements."""
    import pydicom

    def dataset(**values):
        made = pydicom.Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    channels = [
        dataset(
            ChannelSourceSequence=[dataset(CodeValue="1", CodingSchemeDesignator="MDC", CodeMeaning=name)],
            ChannelSensitivity="2",
            ChannelSensitivityUnitsSequence=[dataset(CodeValue="uV", CodingSchemeDesignator="UCUM", CodeMeaning="uV")],
            ChannelSensitivityCorrectionFactor="1",
            ChannelBaseline="0",
            WaveformBitsStored=16,
        )
        for name in ("Lead II", "Lead I (Einthoven)")
    ]
    group = dataset(
        NumberOfWaveformChannels=2, NumberOfWaveformSamples=len(first), SamplingFrequency=str(rate),
        WaveformBitsAllocated=16,
        WaveformSampleInterpretation="SS", WaveformOriginality="ORIGINAL", ChannelDefinitionSequence=channels,
        WaveformData=np.stack([first / 2, second / 2], 1).round().astype("<i2").tobytes(),
    )  # fmt: skip
    kind = "1.2.840.10008.5.1.4.1.1.9.1.1"
    values = {"SOPClassUID": kind, "SOPInstanceUID": "1.2.3", "WaveformSequence": [group]} | changes
    file = dataset(**{name: value for name, value in values.items() if value is not None})
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID, file.file_meta.MediaStorageSOPInstanceUID = kind, "1.2.3"
    content = io.BytesIO()
    pydicom.dcmwrite(content, file, enforce_file_format=True)
    return content.getvalue()


def test_dicom(tmp_path):
    pytest.importorskip("pydicom")
    write(tmp_path, dicom_file(OTHER, UV, 300), "a.dcm")
    check(
        reading.read(tmp_path / "a.dcm"),
        atol=1,
        notes=["of 2 leads Lead I (Einthoven) was taken; the others are Lead II"],
    )
    write(tmp_path, dicom_file(OTHER, UV, 300, WaveformSequence=None), "b.dcm")
    refused("without waveforms", tmp_path / "b.dcm")


@pytest.mark.parametrize(
    "library, content", [("pyarrow", b"PAR1"), ("pydicom", bytes(128) + b"DICM"), ("openpyxl", None)]
)
def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, library, content):
    path = write(tmp_path, content or b"", "a")
    if content is None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("xl/workbook.xml", "")
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name == library:
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    refused(f"needs the library {library}; pip install {library}", path)


@pytest.mark.parametrize(
    "content, message",
    [
        (bytes(16) + b"SCPECG", "is an SCP-ECG file, which is not read; export"),
        (b"ISHNE1.0", "is an ISHNE Holter file"),
        (b"%PDF-1.7\n\0\1\2", "is a PDF, which is not read; export the samples, for a picture"),
        (b"\x89PNG\r\n", "is an image"),
        (b"\xff\xd8\xff\xe0", "is an image"),
        (b"RIFF\0\0\0\0WAVE", "is sound or film"),
        (b"\x1f\x8b\0", "is compressed, which is not read; unpack it first"),
        (b"\x80\4\x95", "is a pickle of Python objects"),
        (b"\xd0\xcf\x11\xe0", "is an old Excel or Office file, which is not read; save it as .xlsx or CSV"),
        (
            b"<?xml version='1.0'?><restingecgdata/>",
            "is Philips's XML of the kind restingecgdata, which is not read; export",
        ),
        (b"<HealthData/>", "holds no ECG; Apple's export has them as CSV, in the folder electrocardiograms"),
        (b"<!DOCTYPE html><html><br>", "is a page of the web"),
        (b"<a><b></a>", "is a damaged XML file"),
        (bytes(range(40)), "is in a format that is not read here"),
        (b"GDF 2.20", "is a GDF file"),
        (b"CFWB\1\0\0\0", "is a binary LabChart file"),
        (b"EEG-1100A V01.00", "is a Nihon Kohden file"),
        (b'CEDFILE"', "is a CFS file"),
        (b"\1\0(C) CED 87", "is a Spike2 file"),
        (b"{\\rtf1\\ansi 1 2 3}", "is an RTF document, which is not read; save its numbers as plain text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"II*\0", "is an image"),
        (b"<RestingECG/>", "is GE's MUSE XML of the kind RestingECG, which is not read"),
        (b"<other/>", "is XML of the kind other, which is not read; export the recording as EDF, WFDB or CSV, or"),
    ],
)
def test_formats_that_are_refused_by_name(tmp_path, content, message):
    refused(message, write(tmp_path, content, "a.dat.x"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("100.atr", "is the annotations of a record, which is not read; name the header of its signals"),
        ("a.ACQ", "is a Biopac file"),
        ("a.adicht", "is a binary LabChart file"),
        ("a.cfs", "is a CFS file"),
        ("a.scp", "is an SCP-ECG file"),
    ],
)
def test_formats_that_only_their_suffix_tells(tmp_path, name, message):
    refused(message, write(tmp_path, b"\x12\0\1\0" * 50, name))
    check(reading.read(write(tmp_path, "\n".join(map(str, UV)), name), fs=FS, unit="uV"))  # a text all the same


@pytest.mark.parametrize(
    "inside, message", [("word/document.xml", "is a Word document"), ("content.xml", "OpenDocument")]
)
def test_documents_are_refused_by_name(tmp_path, inside, message):
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr(inside, "1")
    refused(message + ".*, which is not read; ", tmp_path / "a")


def test_an_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.csv", "1")
    refused("is a zip archive; unpack it", tmp_path / "a.zip")
