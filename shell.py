"""The manners every script shares: one-sentence errors, files written whole, progress on stderr."""

import argparse
import contextlib
import os
import re
import sys
import tempfile
import unicodedata
import uuid
import zipfile
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm


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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, '-', '_' and '.'")
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
        sys.exit(main())
    except UserError as error:
        sys.exit(_say_error(error, 2))
    except ModuleNotFoundError as error:  # of the full installation, where there is only predict.py's
        sys.exit(_say_error(f"this needs {error.name}, which is not installed; pip install -r requirements.txt", 2))
    except KeyboardInterrupt:
        sys.exit(_say_error("interrupted; run the same command again to continue", 130))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _say_error(message, status):
    print(f"error: {printable(str(message))}", file=sys.stderr)
    return status


def printable(text):
    """A text whose control characters, line ends and marks of direction are escaped: a file's name may hold them."""
    return "".join(
        each if unicodedata.category(each) not in ("Cc", "Cf", "Zl", "Zp") else each.encode("unicode_escape").decode()
        for each in text
    )


def shortened(text, most=300):
    """A printable text with its middle left out where it has more than `most` characters."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2 - 3]} … {text[-most // 2 :]}"


def say(message):
    """Print progress or a warning on stderr, above any progress bar."""
    tqdm.write(message, file=sys.stderr)


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
    name keeps the suffix, by which Matplotlib and Keras choose the format.

    Raises `UserError` when the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:  # a failed connection is an OSError too
            raise
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_arrays(path):
    """{name: array} of an `.npz` file, or None where there is none or, which is said, a damaged one.

    The checksums of the zip format find a flipped bit.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, TypeError, NotImplementedError, zlib.error, zipfile.BadZipFile):
        say(f"{path} is damaged and will be made again")
        return None


def make_folders(*folders):
    """Make the output folders, so that one that cannot be written stops a run before its work."""
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(f"cannot write into {folder}: {error.strerror}") from error


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
