import io
import shutil
import threading
import zipfile
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
import scipy.io

import bounds
import dataset
import headers
import measuring
from shell import UserError


@pytest.fixture
def copy(folder, tmp_path):
    """The synthetic folder, to be damaged."""
    return shutil.copytree(folder, tmp_path / "set")


def read(path, labels="reference"):
    return dataset.read_recordings(path, labels)


def test_zip_and_folder_hold_the_same_recordings(folder, archive):
    one, two = read(folder), read(archive)
    pd.testing.assert_frame_equal(one, two)
    assert list(one.columns) == ["record", "label", "signal", "sampling_rate"]
    assert one.record.is_monotonic_increasing and len(one) == 40
    assert all(signal.dtype == np.int16 and signal.ndim == 1 for signal in one.signal)
    stored = scipy.io.loadmat(folder / "A00007.mat")["val"][0]
    np.testing.assert_array_equal(one.signal[one.record == "A00007"].iloc[0], stored)
    assert read(folder.parent).equals(one)  # the folder around `training2017` serves too


def damage_no_mat(path):
    (path / "A00003.mat").unlink()


def damage_no_header(path):
    (path / "A00003.hea").unlink()


def damage_mat(path):
    (path / "A00003.mat").write_bytes(b"no MATLAB file")


def damage_cut_mat(path):
    content = (path / "A00003.mat").read_bytes()
    (path / "A00003.mat").write_bytes(content[:100])


def store(path, name="val", value=None):
    scipy.io.savemat(path / "A00003.mat", {name: value}, format="4" if value is not None and value.size else "5")


def damage_length(path):
    store(path, value=np.ones((1, 77), np.int16))


def damage_labels(path, old=",N\n", new=",X\n"):
    text = (path / "REFERENCE.csv").read_text()
    (path / "REFERENCE.csv").write_text(text.replace(old, new, 1))


def damage_header(path, line):
    (path / "A00003.hea").write_text(line)


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_no_mat, "lacks A00003.mat"),
        (damage_no_header, "lacks A00003.mat or A00003.hea"),
        (damage_mat, "A00003.mat in .* is not a MATLAB file"),
        (damage_cut_mat, "A00003.mat in .* is not a MATLAB file"),
        (partial(store, name="other", value=np.ones((1, 9))), "A00003.mat in .* has no variable 'val'"),
        (partial(store, value=np.empty((1, 0))), "A00003.mat in .* is empty"),
        (partial(store, value=np.array([[1.0, np.nan]])), "A00003.mat in .* holds NaN"),
        (partial(store, value=np.array([[0.25, 1]])), "A00003.mat in .* not 16-bit integers"),
        (partial(store, value=np.array([[70000.0, 1]])), "A00003.mat in .* not 16-bit integers"),
        (partial(store, value=np.ones((2, 9))), "A00003.mat in .* expected one row"),
        (damage_length, "A00003.mat in .* holds 77 samples but its header says"),
        (partial(damage_header, line=""), "A00003.hea in .* is not a WFDB record"),
        (partial(damage_header, line="A00003 1 fast 9000"), "A00003.hea in .* is not a WFDB record"),
        (damage_labels, "REFERENCE.csv in .*,X is not record,label"),
        (partial(damage_labels, old="A00002,", new="A00001,"), "names A00001 twice"),
        (lambda path: (path / "REFERENCE.csv").write_text(""), "nothing is not record,label"),
        (lambda path: (path / "REFERENCE.csv").write_bytes(b"\xff\xfe\x00"), "is not a text file"),
        (lambda path: (path / "REFERENCE.csv").unlink(), "holds no REFERENCE.csv"),
    ],
)
def test_damage_is_named(copy, damage, message):
    damage(copy)
    with pytest.raises(UserError, match=message):
        read(copy)


def test_a_truncated_or_damaged_zip_is_named(archive, tmp_path):
    content = archive.read_bytes()
    (tmp_path / "short.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"short.zip is not a whole zip file"):
        read(tmp_path / "short.zip")
    middle = content.index(b"A00005.mat") + 1000
    (tmp_path / "bad.zip").write_bytes(content[:middle] + b"\x00damage\x00" + content[middle + 8 :])
    with pytest.raises(UserError, match=r"bad.zip is damaged at training2017/A00005.mat"):
        read(tmp_path / "bad.zip")


@pytest.mark.parametrize("name", ["../evil.mat", "/etc/evil.mat", "C:\\evil.mat", "a/../../evil.mat"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(name, b"")
    with pytest.raises(UserError, match="leaves its folder"):
        read(tmp_path / "evil.zip")


def test_a_record_twice_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as file:
        file.writestr("a/A00001.mat", b"")
        file.writestr("b/A00001.mat", b"")
    with pytest.raises(UserError, match=r"holds A00001\.mat twice"):
        read(tmp_path / "twice.zip")


@pytest.mark.parametrize("held", [0, 100_000])
def test_signals_beyond_what_memory_holds_are_read_from_a_file_and_the_same(folder, held, monkeypatch):
    expected = read(folder)
    monkeypatch.setattr(bounds, "HELD", held)
    table = read(folder)
    of_file = ~table.signal.map(lambda signal: signal.flags.writeable)
    assert held - 40_000 <= sum(signal.nbytes for signal in table.signal[~of_file]) <= held
    assert of_file.any()
    assert dataset.fingerprint(table) == dataset.fingerprint(expected)


@pytest.mark.slow
def test_signals_of_a_file_are_measured_on_all_cores(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bounds, "HELD", 0)
    table = read(folder)
    rows = measuring.measure_all(table.signal, table.sampling_rate).rows
    np.testing.assert_array_equal(rows[-1], measuring.measure(table.signal.iloc[-1], 300)[0])


def test_unlabelled_records_are_left_out_and_counted(copy, capsys):
    text = (copy / "REFERENCE.csv").read_text().splitlines(keepends=True)
    (copy / "REFERENCE.csv").write_text("".join(text[2:]))
    assert len(read(copy)) == 38
    assert "2 records" in capsys.readouterr().err


def test_another_sampling_rate_is_kept_and_said(copy, capsys):
    header = (copy / "A00003.hea").read_text()
    (copy / "A00003.hea").write_text(header.replace(" 300 ", " 250 "))
    table = read(copy)
    assert list(table.sampling_rate[table.record == "A00003"]) == [250]
    assert "1 recordings were not sampled at 300 Hz (250 Hz)" in capsys.readouterr().err


def test_labels_from_a_file_and_from_v3_beside_the_set(folder, archive, tmp_path):
    rows = [f"{name},O" for name in ("A00002", "A00001")]
    (tmp_path / "mine.csv").write_text("\ufeffrecord,label\r\n" + "\r\n".join(rows) + "\r\n")
    table = read(archive, str(tmp_path / "mine.csv"))
    assert list(table.record) == ["A00001", "A00002"] and set(table.label) == {"O"}
    (folder.parent / "REFERENCE-v3.csv").write_text("A00001,~\n")
    assert list(read(archive, "v3").label) == ["~"]
    with pytest.raises(UserError, match=r"nowhere.csv is neither reference"):
        read(archive, str(tmp_path / "nowhere.csv"))
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nowhere.zip")


def test_split_is_the_reports(real_set):
    table = read(real_set)
    assert table.label.value_counts().to_dict() == {"A": 738, "N": 5050, "O": 2456, "~": 284}
    part = dataset.split(table)
    assert part.value_counts().to_dict() == {"train": 5116, "validation": 1706, "test": 1706}
    assert table.label[part == "test"].value_counts().to_dict() == {"A": 148, "N": 1010, "O": 491, "~": 57}
    names = {split: " ".join(table.record[part == split]) for split in ("train", "validation", "test")}
    assert {split: sha256(text.encode()).hexdigest()[:16] for split, text in names.items()} == {
        "train": "9283738739dadaed",
        "validation": "7ee15cc5ec61ebea",
        "test": "54fba399ec4d4d2e",
    }


def test_the_validation_split_has_a_seed_of_its_own(folder):
    table = read(folder)
    one, other = dataset.split(table), dataset.split(table, validation_seed=43)
    assert ((one == "test") == (other == "test")).all() and (one != other).any()
    assert (one.value_counts() == other.value_counts()).all()
    assert (dataset.split(table, test_seed=43) == "test").ne(one == "test").any()


def test_the_other_label_versions(real_set):
    assert read(real_set, "original").label.value_counts().to_dict() == {
        "A": 771,
        "N": 5154,
        "O": 2557,
        "~": 46,
    }
    if not (real_set.parent / "REFERENCE-v3.csv").exists():
        pytest.skip("REFERENCE-v3.csv is not beside the real set")
    assert read(real_set, "v3").label.value_counts().to_dict() == {"A": 758, "N": 5076, "O": 2415, "~": 279}


def test_split_needs_five_records_of_a_class():
    table = pd.DataFrame({"label": ["N"] * 50 + ["A"] * 4})
    with pytest.raises(UserError, match="class A has 4 records"):
        dataset.split(table)
    table = pd.DataFrame({"label": ["N"] * 50 + ["A"] * 5})
    assert (pd.crosstab(table.label, dataset.split(table)) > 0).all(axis=None)


def test_split_file_names_every_record(folder, tmp_path):
    table = read(folder)
    table["split"] = dataset.split(table)
    dataset.write_split(table, tmp_path / "split.csv")
    written = pd.read_csv(tmp_path / "split.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(written, table[["record", "label", "split"]].astype(object), check_dtype=False)


def test_own_folds_test_every_record_once(folder):
    table = read(folder)
    folds = dataset.folds(table)
    assert list(folds) == [f"fold{number}" for number in range(5)]
    assert ((folds == "test").sum(axis=1) == 1).all() and ((folds == "validation").sum(axis=1) == 1).all()
    for part in folds.items():
        counts = pd.crosstab(table.label, part[1])
        assert (counts.test - table.label.value_counts() / 5).abs().max() < 1


def test_folds_from_a_file(folder, tmp_path):
    table = read(folder)
    path = tmp_path / "folds.csv"
    parts = np.resize(["train", "train", "valid", "test"], len(table))
    rows = pd.DataFrame({"record": table.record, "fold0": parts, "fold1": np.roll(parts, 1)}).iloc[::-1]
    rows.to_csv(path, index=False)
    folds = dataset.folds(table, path)
    assert list(folds) == ["fold0", "fold1"]
    assert list(folds.fold0) == [{"valid": "validation"}.get(part, part) for part in parts]
    for wrong, message in (
        (rows.iloc[1:], "does not name A00040"),
        (rows.assign(fold1="train"), "column 'fold1' has train; expected"),
        (rows[["record"]], "has no column of a fold"),
        (rows.rename(columns={"record": "name"}), "is not a CSV file of record"),
    ):
        wrong.to_csv(path, index=False)
        with pytest.raises(UserError, match=message):
            dataset.folds(table, path)


@pytest.fixture
def server(archive, tmp_path, monkeypatch):
    """A loopback download address serving tmp_path/served, and the project folder to download into."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(archive, served)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{http.server_port}/"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dataset, "ADDRESSES", ("http://127.0.0.1:9/", address))
    monkeypatch.setattr(dataset, "ZIP_BYTES", archive.stat().st_size)
    monkeypatch.setattr(dataset, "ZIP_RECORDS", 40)
    yield served
    http.shutdown()
    http.server_close()


def test_missing_data_are_downloaded_from_the_mirror(server, archive, tmp_path):
    assert len(dataset.read_recordings()) == 40
    assert (tmp_path / "data/training2017.zip").read_bytes() == archive.read_bytes()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["training2017.zip"]


def test_a_wrong_download_is_thrown_away(server, archive, tmp_path, monkeypatch):
    (server / "training2017.zip").write_bytes(archive.read_bytes()[:-5])
    with pytest.raises(UserError, match="bytes instead of"):
        dataset.read_recordings()
    monkeypatch.setattr(dataset, "ZIP_BYTES", archive.stat().st_size - 5)
    with pytest.raises(UserError, match="not a whole zip file"):
        dataset.read_recordings()
    shutil.copy(archive, server)
    monkeypatch.setattr(dataset, "ZIP_BYTES", archive.stat().st_size)
    monkeypatch.setattr(dataset, "ZIP_RECORDS", 41)
    with pytest.raises(UserError, match="holds 40 records instead of 41"):
        dataset.read_recordings()
    (server / "training2017.zip").unlink()
    with pytest.raises(UserError, match="404"):
        dataset.read_recordings()
    assert list((tmp_path / "data").iterdir()) == []


def test_header_forms():
    def told(content):
        header = headers.parse(content, "x")
        return header.rate, header.samples, dataset.scale(header, "x")

    none = (200, 0, [headers.NO_GAIN])
    assert told(b"# a comment\r\nA1 1 300 9000 05:05:15 1/05/2000\r\n") == (300, 9000, none)
    assert told(b"A1 2 360/512(3) 9000\n") == (360, 9000, none)
    assert told(b"A1 1\n") == (250, None, (200, 0, [headers.NO_RATE, headers.NO_GAIN]))


def test_signal_from_bytes():
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"val": np.array([[1.0, -2.0]])})
    np.testing.assert_array_equal(dataset.parse_signal(stream.getvalue(), "x"), np.array([1, -2], np.int16))
    for line, told in {
        "A1.mat 16+24 1000/mV 16 0 -127 0 0 ECG": (1000, 0),
        "A1.mat 16+24 200/mV 11 1024 5 0 0 ECG": (200, 1024),
        "A1.mat 16 200(-7)/mV 11 1024": (200, -7),
        "A1.mat 16 2/uV 16 0": (2000, 0),
        "A1.mat 16 0 16 0": (200, 0),
    }.items():
        assert dataset.scale(headers.parse(f"A1 1 300 9000\n{line}\n".encode(), "x"), "x")[:2] == told


def test_a_gain_that_is_missing_is_the_standard_s_and_said(tmp_path, capsys):
    import reading

    signal = np.random.default_rng(0).normal(0, 60, 3000).astype(np.int16)
    scipy.io.savemat(tmp_path / "B1.mat", {"val": signal[None]}, format="4")
    (tmp_path / "B1.hea").write_text("B1 1 300 3000\nB1.mat 16+24\n")
    (tmp_path / "REFERENCE.csv").write_text("B1,N\n")
    (row,) = dataset.read_recordings(tmp_path).itertuples()
    assert "of 1 recordings the header tells no gain, so WFDB's 200 per mV was assumed" in capsys.readouterr().err
    np.testing.assert_allclose(row.signal, signal * 5.0)
    np.testing.assert_allclose(row.signal, reading.read(tmp_path / "B1.hea").signal, rtol=1e-5, atol=1e-3)
    (tmp_path / "B1.hea").write_text("B1 1 300 3000\nB1.mat 16+24 9/mmHg 16 0\n")
    with pytest.raises(UserError, match="gives the signal in 'mmHg', no voltage"):
        dataset.read_recordings(tmp_path)


def test_training_reads_a_gain_as_prediction_does(tmp_path):
    import reading

    signal = np.random.default_rng(0).normal(0, 60, 3000).astype(np.int16)
    scipy.io.savemat(tmp_path / "B1.mat", {"val": signal[None]}, format="4")
    (tmp_path / "B1.hea").write_text("B1 1 300 3000\nB1.mat 16+24 200(12)/mV 16 0 0 0 0 ECG\n")
    (tmp_path / "REFERENCE.csv").write_text("B1,N\n")
    (row,) = dataset.read_recordings(tmp_path).itertuples()
    np.testing.assert_allclose(row.signal, (signal - 12.0) * 5, rtol=1e-6)
    np.testing.assert_allclose(row.signal, reading.read(tmp_path / "B1.hea").signal, rtol=1e-5, atol=1e-3)
