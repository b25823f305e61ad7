"""Small whole files of every format that is read, for `fuzz.py` to change."""

import dataclasses
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
from test_formats import AECG, aecg_lead, block, sampled
from test_reading import APPLE, GERMAN, OTHER, UV, commas, edf, table

import runs
import shell
import synthetic
from recipes import Recipe

FS = 50  # Hz, the slowest that is read, so that the files are small
X, Y = UV[60::6][:300], OTHER[60::6][:300]  # µV, two leads of 6 s
T = np.arange(len(X)) / FS
INT, BOTH = (each.astype("<i2").tobytes() for each in (X, np.stack([X, Y], 1)))
MEMBERS = "network,rhythm,trees"


def saved(save, *given, **named):
    """The bytes that `save` writes to a file."""
    file = io.BytesIO()
    save(file, *given, **named)
    return file.getvalue()


def unpacked(content):
    """{name: bytes} of the members of a zip file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts):
    """The bytes of a zip file of {name: bytes or text}."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def matlab():
    for values in ({"val": X[None].astype(np.int16)}, {"x": "text", "val": np.stack([X, Y])}, {"val": X[:, None]}):
        yield from (saved(scipy.io.savemat, values, do_compression=each) for each in (False, True))
        yield saved(scipy.io.savemat, values, format="4")
    yield saved(scipy.io.savemat, {"val": "text", "cells": np.array([[1], ["a"]], object)})
    yield saved(scipy.io.savemat, {"val": {"a": 1}})


HEADERS = [
    "A00001 1 300 9000 05:05:15 1/05/2014\nA.mat 16+24 1000/mV 16 0 -127 0 0 ECG\n",
    "a 2 300/10(5) 900\na.dat 212 200(3)/uV 12 3 0 0 0 I\na.dat 212x2:1+9 1e3 12\n# text\n",
    "m/2 2 300 9000\ns1 4500\n~ 10\ns2 4490\n",
    "a 1\na.dat 80\n",
]


def header():
    return [each.encode() for each in HEADERS]


def wfdb():
    yield packed({"a.hea": "a 1 50 300\na.dat 16 1000/mV 16 0 0 0 0 I\n", "a.dat": INT})
    yield packed({"a.hea": "a 1 50\na.mat 16+24 1000/mV 16 0 -127 0 0 ECG\n", "a.mat": bytes(24) + INT})
    two = "\na.dat {0} 1(2)/uV 12 0 0 0 0 I\na.dat {0}{1} 1/uV 12 0 0 0 0 RESP\n"
    for form in (8, 16, 24, 32, 61, 80, 160, 212, 310, 311):
        yield packed({"a.hea": "a 2 50 300" + two.format(form, ""), "a.dat": 2 * BOTH})
    yield packed({"a.hea": "a 2 50.5/9(3) 300" + two.format(16, "x2"), "a.dat": 2 * BOTH})
    parts = {f"s{i}.hea": f"s{i} 1 50 150\ns{i}.dat 16 1000/mV 16 0 0 0 0 II\n" for i in (1, 2)}
    parts |= {"s1.dat": INT[:300], "s2.dat": INT[300:]}
    yield packed({"a.hea": "a/2 1 50 300\ns1 150\ns2 150\n"} | parts)
    layout = {"l_layout.hea": "l_layout 1 50 0\n~ 0 1000/mV 16 0 0 0 0 II\n"}
    yield packed({"a.hea": "a/4 1 50 310\nl_layout 0\ns1 150\n~ 10\ns2 150\n"} | parts | layout)


def signals():
    from edfio import EdfAnnotation

    here, leads = Path(), [("ECG I", "uV", X, FS), ("SpO2", "%", T, FS)]
    for given in ({}, {"annotations": [EdfAnnotation(1, None, "symptom")]}, {"data_record_duration": 1, "bdf": True}):
        yield edf(here, leads, **given).read_bytes()


def text():
    both = {"header": "time (s);II (mV);I (mV)\n", "separator": ";", "decimal": ","}
    yield (APPLE.replace("512", "50") + "".join(f"{x:.3f}\n" for x in X)).encode()
    yield (GERMAN.format(rate="50 Hertz") + commas(X)).encode("utf-16")
    yield table(T, X / 1000, Y / 1000, **both).encode()
    yield table(T, X, header="# Sampling rate: 50 Hz\nt,ECG_uV\n", decimals=3).encode()
    yield ",".join(f"{x / 1000:.3f}" for x in X).encode()
    yield table(*X.reshape(-1, 6).T, separator=" ", decimals=1).encode()
    yield "\n".join(f"2026-01-02 10:00:{t:06.3f},{x:.0f}" for t, x in zip(T, X, strict=True)).encode()
    yield "\n".join(f"0:{t:06.3f}\t{x:.0f}" for t, x in zip(T, X, strict=True)).encode("latin-1")
    yield ("Interval=\t0.02 s\nChannelTitle=\tECG\tABP\nRange=\t5 mV\t9 V\n" + table(T, X, Y, separator="\t")).encode()
    told = {"a": {"column": ["nSeq", "CH1"], "sensor": ["ECG"], "sampling rate": 50}}
    yield (f"# OpenSignals\n# {json.dumps(told)}\n" + table(np.arange(300), X, separator="\t", decimals=0)).encode()
    yield ("300\n50\n" + "\n".join(f"{x:.2f}" for x in X)).encode()


def told_json():
    numbers = X.round().tolist()
    lead = sampled("131329", "uV", X.round(), period=20)
    yield json.dumps({"resourceType": "Observation", "component": [lead, sampled("MDC_ECG_LEAD_II", "uV", Y)]}).encode()
    interval = {"period": None, "interval": 0.02, "intervalUnit": "s"}
    yield (
        json.dumps(sampled("MDC_ECG_LEAD_I", "mV", X, 1e-3, 0, **interval))
        .replace('"code": "M', '"display": "M')
        .encode()
    )
    fitbit = {"startTime": "2026", "waveformSamples": numbers, "samplingFrequencyHz": "50", "scalingFactor": 1000}
    yield json.dumps({"ecgReadings": [fitbit]}).encode()
    yield json.dumps({"body": {"signal": numbers, "sampling_frequency": 50}}).encode()
    yield json.dumps([{"t": t, "ecg": x} for t, x in zip(T.tolist(), numbers, strict=True)]).encode()
    yield json.dumps({"ecg": numbers, "fs": 50, "unit": "uV", "notch": [1, "a"]}).encode()
    yield json.dumps(numbers).encode("utf-16-le")


def xml():
    leads = aecg_lead("II", Y.round()) + aecg_lead("I", X.round())
    for step, second, encoding in ((20, "ms", "utf-8"), (0.02, "s", "utf-16")):
        text = AECG.format(step=step, second=second, leads=leads)
        yield text.replace('"1.0"', f'"1.0" encoding="{encoding}"').encode(encoding)
    yield b"<restingecgdata/>"


def npy():
    fields = np.array(list(zip(T, X, strict=True)), [("time", "f8"), ("ecg_uV", "f4")])
    yield from (saved(np.save, each) for each in (X, np.stack([X, Y]).astype(">f4"), fields, X.astype(np.int16)))


def npz():
    yield saved(np.savez, ecg=X / 1000, fs=FS, unit="mV", labels=np.arange(300) // 60)
    yield saved(np.savez_compressed, x=np.stack([Y, X], 1), sampling_rate=50.0, lead_names=np.array(["V1", "I"]))
    yield saved(np.savez, time=T, ECG=X.astype(np.float16))


def hdf5():
    import h5py

    def fill(file, **settings):
        with h5py.File(file, "w", **settings) as made:
            data = made.create_group("rec").create_dataset("ECG", data=X.astype(np.float32))
            data.attrs["sampling_rate"], data.attrs["units"] = FS, "uV"
            made.create_dataset("t", data=T.astype(np.float32), chunks=(100,), compression="gzip", shuffle=True)
            made["names"] = ["a", "b"]

    yield saved(fill)
    yield saved(fill, libver="latest")
    mat = saved(
        lambda file: h5py.File(file, "w", userblock_size=512).create_dataset("val", data=X[:, None]).file.close()
    )
    yield b"MATLAB 7.3 MAT-file " + mat[20:]


def parquet():
    import pandas as pd

    times = pd.DataFrame({"time": pd.to_datetime(T * 1e9), "ECG (mV)": X / 1000, "name": ["x"] * len(X)})
    for compression in (None, "snappy"):
        yield times.to_parquet(compression=compression)
    yield pd.DataFrame({"fs": FS, "ecg": X.astype(np.int16)}).to_parquet(compression=None)


def excel():
    import openpyxl

    book = openpyxl.Workbook()
    for row in [["time (s)", "ECG (mV)"], *zip(T.tolist(), (X / 1000).tolist(), strict=True)]:
        book.active.append(row)
    book.create_sheet("Notes")["A1"] = "=1+1"
    yield saved(lambda file: book.save(file))


def dicom():
    from test_formats import dicom_file

    yield dicom_file(X, Y, FS)


def alivecor():
    start = b"ALIVE\0\0\0\4\0\0\0" + block(b"info", bytes(9)) + block(b"fmt ", struct.pack("<BHHBH", 1, FS, 1000, 0, 0))
    yield start + block(b"ecg ", INT) + block(b"ecg2", Y.astype("<i2").tobytes())


def recordings():
    synthetic.write_dataset(Path("set"), count=3, seed=1)
    parts = {f"training2017/{each.name}": each.read_bytes() for each in sorted(Path("set").iterdir())}
    short = saved(scipy.io.savemat, {"val": X[None].astype(np.int16)})
    parts |= {name: short for name in parts if name.endswith(".mat")}
    parts |= {name: part.replace(part.split()[3], b"300") for name, part in parts.items() if name.endswith(".hea")}
    yield packed(parts)


def labels():
    return b"A00001,N\nA00002,A\n", b"record,label\r\nA00001,~\r\nA00002,O\r\n", b"\xef\xbb\xbfA00001,N\nA00002,O"


def folds():
    rows = [
        f"A{i:05},{a},{b}"
        for i, (a, b) in enumerate(zip(["train", "valid", "test"] * 2, ["test", "train", "valid"] * 2, strict=True))
    ]
    yield "\n".join(["record,fold0,fold1", *rows]).encode()
    yield "\n".join(['"record","fold"', *(row[:-6].rstrip(",") for row in rows)]).encode()


def sweep():
    return [path.read_bytes() for path in sorted(Path(__file__).parents[2].glob("sweep*.yaml"))]


def tiny_model():
    """{member: bytes} of a model as main.py saves it, with small networks and trees."""
    import lightgbm
    import onnx.helper as made
    from onnx import TensorProto, numpy_helper

    import beats
    import preprocessing
    import rhythm
    import trees

    def network(shape, axis, many):
        """The mean over an axis, (n, many), as four probabilities."""
        given = made.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])
        answer = made.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
        steps = [
            made.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=0),
            made.make_node("MatMul", ["mean", "weights"], ["logits"]),
            made.make_node("Softmax", ["logits"], ["y"]),
        ]
        kept = {"axis": np.array([axis]), "weights": np.eye(many, 4, dtype=np.float32)}
        kept = [numpy_helper.from_array(value, name) for name, value in kept.items()]
        graph = made.make_graph(steps, "net", [given], [answer], kept)
        by = {"opset_imports": [made.make_opsetid("", 18)], "ir_version": 10}
        return made.make_model(graph, **by).SerializeToString()

    recipe = Recipe(name="improved", backbone="compact", weights="random", members=MEMBERS)
    rows = np.random.default_rng(0).normal(size=(80, len(beats.MEASUREMENTS)))
    settings = {"objective": "multiclass", "num_class": 4, "num_leaves": 4, "verbose": -1, "num_iterations": 2}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, np.arange(80) % 4))
    shape = preprocessing.image_shape(recipe)
    calibration = {name: [1.0, [0.0] * 4] for name in (MEMBERS, *MEMBERS.split(","))}
    scores, thresholds = {"avg_F1_score": 0.5, "challenge_F1": 0.5}, dict.fromkeys(runs.THRESHOLDS, 0.5)
    card = runs.Card(
        recipe, frozenset(["A1"]), "f", "data", calibration, [{"epoch": 1}], scores, trees.provenance(), thresholds
    )
    return {
        runs.CARD: runs._card_text(card).encode(),
        runs.ONNX: network(shape, 2, shape[0]),
        runs.RHYTHM: network((None, len(rhythm.FEATURES)), 1, len(rhythm.FEATURES)),
        runs.TREES.format(0): booster.model_to_string().encode(),
    }


def card():
    yield packed({runs.CARD: tiny_model()[runs.CARD]})
    plain = dataclasses.asdict(Recipe())
    yield packed(
        {runs.CARD: json.dumps({"classes": list("ANO~"), "recipe": plain, "seen": [], "fingerprint": "", "data": ""})}
    )


def model():
    yield packed(tiny_model())


def arrays():
    shell.write_arrays("kept.npz", features=np.arange(6, dtype=np.float32).reshape(2, 3), keys=np.array(["a", "bc"]))
    yield Path("kept.npz").read_bytes()


def kept_beats():
    import beats
    import measuring
    import rhythm

    row, sequence = np.zeros(len(beats.MEASUREMENTS), np.float32), np.zeros((3, len(rhythm.FEATURES)), np.float16)
    measuring._write(Path("kept.npz"), {"a": (row, sequence), "b": (row, sequence[:0])})
    yield Path("kept.npz").read_bytes()


def predictions():
    yield b"record,class\nA1,N\nA2,~\n"
    yield b"record,fold,label,A,N,O,~,seconds\nA1,f0,N,0.1,0.7,0.1,0.1,30\nA2,f0,O,0,0,1,0,\n"
    names = "file,class,uncertain,probability_A,probability_N,probability_O,probability_~,seconds,error"
    yield f"{names}\nset/A1.hea,N,False,0.1,0.7,0.1,0.1,30.0,\nA2.mat,,,,,,,,is damaged\n".encode()


def answered():
    yield b'file,class,error,fingerprint\na.hea,N,,f\n"b,c.hea",,"is ""no"" WFDB",f\nd.hea,A,,'
