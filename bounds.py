"""How much is read: regular files alone, and of them, packed or not, as much as a computer can hold."""

import os
import stat
from pathlib import Path

from shell import UserError

MOST_BYTES = 1_000_000_000  # of a file, and of what it unpacks to
HELD = 300_000_000  # bytes of recordings, and of what is made of them, that are kept in memory
MOST_TEXT = 200_000_000  # of a text, whose numbers need some twenty times the memory while they are parsed
KINDS = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}


def read_file(path):
    """The bytes of a regular file. Raises `UserError` for what is none, cannot be read or is too large."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path} is a folder, not a recording; name a recording in it")
        kind = next((name for test, name in KINDS.items() if test(mode)), None)
        if kind:
            raise UserError(f"{path} is {kind} and no file, so it is not opened; name a file or -, standard input")
        with path.open("rb") as file:
            # Not `MOST_BYTES`: as much memory as is asked for is taken before anything is read.
            content = file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES) + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    check_size(len(content), path)
    return content


def read_stream(file, path):
    """The bytes of an open binary file, called `path` in the `UserError` for one that is too large."""
    content = file.read(MOST_BYTES + 1)
    check_size(len(content), path)
    return content


def check_size(size, path, verb="holds", most=None):
    """Refuse more than `most` bytes (None: `MOST_BYTES`), which the file `path` holds or unpacks to."""
    most = most or MOST_BYTES
    if size > most:
        read = f"{most / 1e9:g} GB" if most >= 1e9 else f"{most / 1e6:g} MB"
        raise UserError(f"{path} {verb} more than {read}, the most that is read; split it into shorter recordings")


def check_zip(archive, path):
    """Refuse a `zipfile.ZipFile` that unpacks to too much. No member is unpacked beyond the size that it tells."""
    check_members(archive.infolist(), path)


def check_members(entries, path):
    """Refuse members of a zip file that unpack to too much, or tell that they are packed to too much: of what they tell
    as much memory is taken as if it were there.
    """
    check_size(sum(max(entry.file_size, entry.compress_size) for entry in entries), path, "unpacks to")
