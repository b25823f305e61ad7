"""The manners every script shares: one-sentence errors, files written whole, progress on stderr."""

import argparse
import contextlib
import functools
import os
import re
import socket
import sys
import tempfile
import unicodedata
import uuid
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
from tqdm import tqdm

LONGEST = 2000  # characters of a message, which a file's own words may fill


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, with which file, and what to do."""


def parser(description):
    """An `argparse` parser in the scripts' one style: no abbreviations, every default shown."""
    return _Parser(
        description=description.strip(),
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )


def run_name(text):
    """The type of a `--run` flag: a name that stays inside the output folders."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", text):  # a file's name may have 255, with its suffix
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of up to 200 letters, digits, '-', '_' and '.'")
    return text


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"error: {message} ({self.prog} --help tells more)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def run_script(main):
    """Call `main()` and exit with what it returns (None: 0), 2 for an error to mend, 130 when interrupted."""
    try:
        status = main()
        sys.stdout.flush()  # here, where an error is told; at the end of the process it would be a traceback
        sys.exit(status)
    except UserError as error:
        sys.exit(_say_error(error, 2))
    except ModuleNotFoundError as error:  # of the full installation, where there is only predict.py's
        sys.exit(_say_error(f"this needs {error.name}, which is not installed; pip install -r requirements.txt", 2))
    except KeyboardInterrupt:
        sys.exit(_say_error("interrupted; run the same command again to continue", 130))
    except BrokenPipeError:
        _drop_output()
        sys.exit(0)
    except OSError as error:  # of a disk, a folder or a file, wherever it was met
        if error.errno is None:
            raise
        _drop_output()
        what = f"cannot use {error.filename}" if error.filename else "cannot write the output"
        sys.exit(_say_error(f"{what}: {reason(error)}; mend that and run the same command again", 2))


def _drop_output():
    """Have what stdout could not take go nowhere, lest it is tried again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def reason(error):
    """Why an `OSError` was raised, in the system's words where there are any."""
    found = re.search(r"error message = '([^']*)'", str(error))  # HDF5's errors have no number
    return error.strerror or (found[1] if found else " ".join(str(error).split())[:160])


def _say_error(message, status):
    print(f"error: {shortened(str(message), LONGEST)}", file=sys.stderr)
    return status


def printable(text):
    """A text whose control characters, line ends, marks of direction and halves of pairs are escaped: a file's name may
    hold them.
    """
    return "".join(
        each
        if unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else each.encode("unicode_escape").decode()
        for each in text
    )


def shortened(text, most=300):
    """A printable text with its middle left out where it has more than `most` characters."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2 - 3]} … {text[-most // 2 :]}"


def say(message):
    """Print progress or a warning on stderr, above any progress bar."""
    tqdm.write(shortened(message, LONGEST), file=sys.stderr)


def progress(total, what, unit, disable=False):
    """A progress bar on stderr; silent where stderr is not a terminal and the work is short, or if disabled."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        file=sys.stderr,
        dynamic_ncols=True,
        disable=disable,
        delay=1 if terminal else 5,
        mininterval=0.1 if terminal else 30,
    )


@contextlib.contextmanager
def writing(path):
    """Yield a temporary path beside `path`; on success it is flushed to disk and becomes `path`.

    A reader, or a run killed at any moment, finds the old file or the new one, never a part. The temporary
    name keeps the suffix, by which Matplotlib and Keras choose the format, and tells who writes it.

    Raises `UserError` when the folder or the file cannot be written.
    """
    path = Path(path)
    owner = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f".{path.stem[:40]}.{owner}{path.suffix[:20]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent.absolute(), os.getpid())
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if (
            error.errno is None and type(error) is not OSError
        ):  # a failed connection; NumPy and HDF5 raise the plain one
            raise
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@functools.cache
def _machine():
    """Six digits for this machine: processes of another, on a shared disk, cannot be seen from here."""
    return sha256(socket.gethostname().encode()).hexdigest()[:6]


def sweep(folder):
    """Delete what processes of this machine that were killed left of the files they were `writing` in `folder`."""
    if os.name != "posix":  # elsewhere asking for a process may end it
        return
    with contextlib.suppress(OSError):
        for path in Path(folder).iterdir():
            owner = re.fullmatch(rf"\..*\.{_machine()}-(\d{{1,9}})-[0-9a-f]{{8}}(\.[^.]*)?", path.name, re.DOTALL)
            if owner and not _lives(int(owner[1])):
                with contextlib.suppress(OSError):
                    path.unlink()


@functools.lru_cache(1000)
def _sweep_once(folder, process):
    sweep(folder)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def write_arrays(path, **arrays):
    """Write `arrays` whole to the `.npz` file `path`, with a checksum of them all, for `read_arrays`."""
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    with writing(path) as temporary:
        np.savez(temporary, checksum=_checksum(arrays), **arrays)


@contextlib.contextmanager
def unwarned():
    """Meanwhile, libraries do not warn: what a file holds is told in our words, or it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@unwarned()
def read_arrays(path, fit=lambda arrays: True):
    """{name: array} of a file of `write_arrays`, or None where there is none or, which is said, a bad one.

    fit: a function that tells whether the arrays are such as the caller wants; one that raises says no.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        whole = all(map(are_texts, arrays.values())) and str(arrays.pop("checksum")) == _checksum(arrays)
        if whole and fit(arrays):
            return arrays
    except FileNotFoundError:
        return None
    except Exception:  # NumPy's parsers raise whatever they stumble on
        pass
    say(f"{path} is damaged or not what it should be, and will be made again")
    return None


def are_texts(array):
    """Whether an array holds no characters beyond Unicode, of which NumPy makes texts that nothing can print."""
    array = np.ascontiguousarray(array)
    return array.dtype.kind != "U" or bool((np.frombuffer(array, f"{array.dtype.byteorder}u4") <= sys.maxunicode).all())


def _checksum(arrays):
    """A hash (hexadecimal) of the names, types, shapes and contents of {name: array}."""
    key = sha256()
    for name in sorted(arrays):
        key.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
        key.update(np.ascontiguousarray(arrays[name]).data.cast("B") if arrays[name].size else b"")
    return key.hexdigest()


def make_folders(*folders):
    """Make the output folders, so that one that cannot be written stops a run before its work."""
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(b" ")  # which a full disk refuses
            sweep(folder)
        except OSError as error:
            raise UserError(f"cannot write into {folder}: {reason(error)}") from error


@contextlib.contextmanager
def hidden(*packages):
    """Meanwhile, importing any of `packages` fails, as if it were not installed, unless it is imported already."""
    blocked = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))
    try:
        yield
    finally:
        for name in blocked:
            del sys.modules[name]


@contextlib.contextmanager
def quiet():
    """Drop what compiled libraries write straight to the process's stderr meanwhile."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
