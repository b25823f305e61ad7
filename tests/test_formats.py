"""What is read from each format beyond text, EDF and WFDB (test_reading.py), and what is refused by its name."""

import builtins
import json
import struct
import zipfile

import numpy as np
import pytest
from test_reading import FS, MV, OTHER, UV, T, check, refused, write

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
        r"rate \(its samples are of several dimensions\)",
        write(tmp_path, json.dumps(sampled("131329", "uV", UV, dimensions=2)), "c.json"),
    )


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
    refused("is a damaged AliveCor file", write(tmp_path, content[:-900], "b.atc"))


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


def test_dicom(tmp_path):
    pydicom = pytest.importorskip("pydicom")

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
        NumberOfWaveformChannels=2, NumberOfWaveformSamples=len(UV), SamplingFrequency="300", WaveformBitsAllocated=16,
        WaveformSampleInterpretation="SS", WaveformOriginality="ORIGINAL", ChannelDefinitionSequence=channels,
        WaveformData=np.stack([OTHER / 2, UV / 2], 1).round().astype("<i2").tobytes(),
    )  # fmt: skip
    kind = "1.2.840.10008.5.1.4.1.1.9.1.1"
    file = dataset(SOPClassUID=kind, SOPInstanceUID="1.2.3", WaveformSequence=[group])
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID, file.file_meta.MediaStorageSOPInstanceUID = kind, "1.2.3"
    pydicom.dcmwrite(tmp_path / "a.dcm", file, enforce_file_format=True)
    check(
        reading.read(tmp_path / "a.dcm"),
        atol=1,
        notes=["of 2 leads Lead I (Einthoven) was taken; the others are Lead II"],
    )
    del file.WaveformSequence
    pydicom.dcmwrite(tmp_path / "b.dcm", file, enforce_file_format=True)
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
    ],
)
def test_formats_that_are_refused_by_name(tmp_path, content, message):
    refused(message, write(tmp_path, content, "a.dat.x"))


def test_an_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.csv", "1")
    refused("is a zip archive; unpack it", tmp_path / "a.zip")
