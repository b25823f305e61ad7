"""Servers that fail, lie or dawdle, from which the recordings are downloaded."""

import gzip
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT

import bounds
import dataset
import shell
from shell import UserError

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Sends what `speak`, a function of a socket, says to each that connects; `here` is its address."""

    def __init__(self, speak):
        self.speak, self.listening = speak, socket.create_server(("127.0.0.1", 0))
        self.here = f"http://127.0.0.1:{self.listening.getsockname()[1]}/"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:  # the test is over
                return
            threading.Thread(target=self.answer, args=[connection], daemon=True).start()

    def answer(self, connection):
        with connection:
            try:
                connection.recv(65536)
                self.speak(connection)
            except OSError:  # the other side has gone
                pass


def whole(content, headers=b""):
    return lambda to: to.sendall(OK + headers + b"Content-Length: %d\r\n\r\n" % len(content) + content)


def plain(content):
    return lambda to: to.sendall(content)


def drips(start, piece=b"x"):
    """A speaker that after `start` says `piece` every 20 ms, for 20 s."""

    def speak(to):
        to.sendall(start)
        for _ in range(1000):
            to.sendall(piece)
            time.sleep(0.02)

    return speak


def endless(start, piece=bytes(1 << 16)):
    def speak(to):
        to.sendall(start)
        while True:
            to.sendall(piece)

    return speak


def hang(to):
    to.settimeout(20)
    to.recv(1)


def reset(to):
    to.sendall(OK + b"Content-Length: 1000\r\n\r\nPK")
    to.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))  # close by a reset


def moved(to_where):
    return plain(b"HTTP/1.1 302 Found\r\nLocation: " + to_where + b"\r\nContent-Length: 0\r\n\r\n")


drip = drips(OK + b"Content-Length: 100000\r\n\r\n")
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /training2017.zip\r\n"
EMPTY = gzip.compress(b"")[:10]  # the header alone
BOMB = gzip.compress(bytes(1 << 20)) * 1000  # members of one file

FAULTS = {
    "nothing": plain(b""),
    "no HTTP": plain(b"220 ready\r\n"),
    "half a status": plain(b"HTTP/1.1 2"),
    "a status of words": plain(b"HTTP/1.1 fine\r\n\r\n"),
    "half a header": plain(OK + b"Content-Le"),
    "10,000 headers": plain(OK + b"X: y\r\n" * 10000 + b"\r\n"),
    "a header of a megabyte": plain(OK + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n"),
    "not found": plain(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "forbidden": plain(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope"),
    "an error of the server": plain(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
    "overloaded": plain(b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"),
    "a redirect to itself": moved(b"/training2017.zip"),
    "a redirect to a file": moved(b"file:///etc/passwd"),
    "a redirect to nowhere": moved(b"http://127.0.0.1:9/"),
    "a redirect that is no address": moved(b"http://["),
    "a page": whole(b"<html>Log in to this network</html>", b"Content-Type: text/html\r\n"),
    "an empty file": whole(b""),
    "a short body": plain(OK + b"Content-Length: 1000\r\n\r\nPK"),
    "a length that is none": plain(OK + b"Content-Length: many\r\n\r\nPK"),
    "a negative length": plain(OK + b"Content-Length: -5\r\n\r\nPK"),
    "two lengths": plain(OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nPK"),
    "no gzip": whole(b"not packed", b"Content-Encoding: gzip\r\n"),
    "half a gzip": whole(gzip.compress(bytes(9999))[:20], b"Content-Encoding: gzip\r\n"),
    "chunks of words": plain(OK + b"Transfer-Encoding: chunked\r\n\r\nmany\r\nPK\r\n"),
    "half a chunk": plain(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nPK"),
    "a chunk of exabytes": plain(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nPK"),
    "a reset": reset,
    "a byte now and then": drip,
    "a header by the byte": drips(OK + b"X: "),
    "a chunk's length by the byte": drips(OK + b"Transfer-Encoding: chunked\r\n\r\n5;"),
    "be patient": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "an empty gzip without end": drips(OK + b"Content-Encoding: gzip\r\n\r\n" + EMPTY, b"\0\0\0\xff\xff"),
    "a gzip that unpacks to a gigabyte": whole(BOMB, b"Content-Encoding: gzip\r\n"),
    "gzips of a gzip": whole(gzip.compress(BOMB), b"Content-Encoding: gzip, gzip\r\n"),
    "gzip a thousand times": whole(BOMB, b"Content-Encoding: " + b"gzip, " * 1000 + b"gzip\r\n"),
    "no end": endless(OK + b"\r\n"),
    "no end of chunks": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + bytes(0x8000) + b"\r\n"),
    "a redirect without end": endless(MOVED + b"\r\n"),
    "a redirect by the byte": drips(MOVED + b"\r\n"),
    "no content": plain(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "a part": plain(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nPK"),
    "not modified": plain(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "silence": hang,
}


@pytest.fixture
def here(archive, tmp_path, monkeypatch):
    """The folder to download into, for a set of 40 recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dataset, "ZIP_BYTES", archive.stat().st_size)
    monkeypatch.setattr(dataset, "ZIP_RECORDS", 40)
    monkeypatch.setattr(bounds, "MOST_BYTES", 10_000_000)
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_server_is_one_sentence_and_an_honest_one_then_serves(fault, here, archive, monkeypatch):
    bad, good = Server(FAULTS[fault]), Server(whole(archive.read_bytes()))
    monkeypatch.setattr(dataset, "ADDRESSES", (bad.here, bad.here))
    patience = dataset.PATIENCE
    monkeypatch.setattr(dataset, "PATIENCE", 0.5)
    with pytest.raises(UserError, match=r"cannot download training2017\.zip") as error:
        dataset.read_recordings()
    assert len(str(error.value)) < 1000 and "\n" not in str(error.value)
    assert list((here / "data").iterdir()) == []
    monkeypatch.setattr(dataset, "ADDRESSES", (good.here, bad.here))
    monkeypatch.setattr(dataset, "PATIENCE", patience)  # a busy machine may keep the honest one waiting
    assert len(dataset.read_recordings()) == 40
    assert [path.name for path in (here / "data").iterdir()] == ["training2017.zip"]


def flipped(content):
    place = content.index(b"val") + 100  # among the samples of a recording
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in members:
            archive.writestr(name, bytes(300_000))
    return file.getvalue()


WRONG = {
    "a flipped byte": (flipped, r"is damaged at training2017/A\d{5}\.mat"),
    "zeros": (lambda content: bytes(len(content)), "not a whole zip file"),
    "a bomb": (lambda content: zipped(f"A{n}.mat" for n in range(40)), "unpacks to more than"),
    "a way out": (lambda content: zipped(["../A1.mat"]), "leaves its folder"),
}


@pytest.mark.parametrize(("change", "told"), WRONG.values(), ids=WRONG)
def test_a_file_of_the_right_size_and_another_content_is_refused(change, told, here, archive, monkeypatch):
    content = change(archive.read_bytes())
    bad, good = Server(whole(content)), Server(whole(archive.read_bytes()))
    monkeypatch.setattr(dataset, "ADDRESSES", (bad.here,))
    monkeypatch.setattr(dataset, "ZIP_BYTES", len(content))
    with pytest.raises(UserError, match=rf"^cannot download training2017\.zip .*{told}"):
        dataset.read_recordings()
    assert list((here / "data").iterdir()) == []
    monkeypatch.setattr(dataset, "ADDRESSES", (good.here,))
    monkeypatch.setattr(dataset, "ZIP_BYTES", archive.stat().st_size)
    assert len(dataset.read_recordings()) == 40


def test_labels_of_another_content_are_refused(here, monkeypatch):
    server = Server(whole(b"A00001,N\n"))
    monkeypatch.setattr(dataset, "ADDRESSES", (server.here,))
    with pytest.raises(UserError, match=r"its SHA-256 is [0-9a-f]{12}… instead of ae517e474b0b…"):
        dataset.download("REFERENCE-v3.csv", dataset.V3_HASH)
    assert list((here / "data").iterdir()) == []


def test_a_killed_download_leaves_nothing_behind(here, archive, monkeypatch):
    slow, good = Server(drip), Server(whole(archive.read_bytes()))
    code = f"import dataset; dataset.ADDRESSES = ({slow.here!r},); dataset.download('training2017.zip')"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(PROJECT)})
    while not list(Path("data").glob(".training2017*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(Path("data").iterdir())) == 1
    shell._sweep_once.cache_clear()  # as in a process that starts
    monkeypatch.setattr(dataset, "ADDRESSES", (good.here,))
    assert dataset.download("training2017.zip").name == "training2017.zip"
    assert [path.name for path in Path("data").iterdir()] == ["training2017.zip"]
