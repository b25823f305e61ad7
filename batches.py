"""Many recordings: in chunks, on several processes or a Dask cluster, into a CSV file that continues after a kill."""

import csv
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

from shell import UserError, say, writing

CHUNK = 64  # recordings that are handed to a worker at a time, of whom each gets at least four turns
DEATHS = 3  # of workers in a row, without a chunk done, after which something is wrong with more than one of them


def _chunks(paths, workers):
    size = max(min(CHUNK, len(paths) // (4 * workers)), 1)
    return [paths[start : start + size] for start in range(0, len(paths), size)]


def by_processes(work, paths, workers):
    """Yield the rows that `work` returns for each chunk of `paths`, as soon as it is done, on so many processes.

    work: a function of a module (chunk of paths → list). What a killed process was at is done again by another. Raises
    what `work` raises, and `UserError` where one process dies after the other.
    """
    left = dict(enumerate(_chunks(paths, workers)))
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))  # of each process
    deaths = 0
    while left:
        # Not by forks, which would share the locks of the libraries' threads.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent)
        try:
            futures = {pool.submit(work, chunk): place for place, chunk in left.items()}
            for future in as_completed(futures):
                rows = future.result()
                del left[futures.pop(future)]
                deaths = 0
                yield from rows
        except BrokenProcessPool:
            deaths += 1
            if deaths == DEATHS:
                raise UserError(
                    f"{DEATHS} worker processes died one after the other, as they do without memory; "
                    "pass fewer --workers"
                ) from None
            say("a worker process died; what it was at is done again")
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a traceback
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()  # also when killed


def by_dask(work, paths, address):
    """Yield the rows that `work` returns for each chunk of `paths`, as `by_processes` does, on the Dask cluster whose
    scheduler is at `address`. It hands what a lost worker was at to another.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed import as_completed as completed
    except ModuleNotFoundError as error:
        raise UserError(f"--dask needs {error.name}, which is not installed; pip install distributed") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {address}; start one, or pass its address") from error
    with client:
        chunks = _chunks(paths, sum(client.nthreads().values()) or 1)
        try:
            for future in completed([client.submit(work, chunk, pure=False) for chunk in chunks]):
                yield from future.result()
                future.release()
        except KilledWorker as error:
            raise UserError(f"worker after worker at {address} died of the same recordings ({error})") from error
        except (ModuleNotFoundError, RuntimeError) as error:  # the latter of the scheduler, which imports them too
            raise UserError(
                f"the cluster at {address} cannot do this ({str(error)[:120]}); start its scheduler and workers "
                "in the project's folder, with PYTHONPATH=. and with its packages"
            ) from error


def is_table(path, names):
    """Whether `path` is for a CSV file of `append`, to be begun or continued, and not a recording: it ends in .csv, and
    is new or begins with the columns `names`.
    """
    if not path.endswith(".csv"):
        return False
    header = ",".join(names).encode()
    try:
        with open(path, "rb") as file:
            return header.startswith(file.read(len(header)))  # also where a kill left a part of it
    except FileNotFoundError:
        return True
    except OSError:
        return False


def answered(path, names, fingerprint):
    """{file: whether it failed} of the rows in the CSV file `path`, which `append` wrote; empty where there is none.

    names: of its columns, among them file, error and fingerprint. A row that a kill left unfinished is cut off. Raises
    `UserError` for a file of other columns or of another fingerprint.
    """
    known = {}
    foreign = UserError(f"{path} was written by another model or with other flags; name another file, or delete it")
    try:
        with open(path, "r+", encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.reader(_whole_lines(file))
            header, end = next(rows, None), 0
            if header not in (None, names):
                raise foreign
            while header:
                end = file.tell()
                values = dict(zip(names, next(rows, []), strict=False))
                if len(values) < len(names):
                    break
                if values["fingerprint"] != fingerprint:
                    raise foreign
                known[values["file"]] = bool(values["error"])
            file.truncate(end)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return known


def drop(path, files):
    """Take the rows of the `files`, a set, out of the CSV file `path`, which `append` wrote and `answered` has read."""
    text = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    with writing(path) as temporary, open(path, **text) as old, open(temporary, "w", **text) as new:
        rows = csv.reader(old)
        header = next(rows)
        writer = csv.writer(new, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(row for row in rows if row[header.index("file")] not in files)


def _whole_lines(file):
    while (line := file.readline()).endswith("\n"):  # line by line, so that `file.tell` is known
        yield line


def append(path, names, rows):
    """Append `rows`, {column: value}, to the CSV file `path`, each at once; the columns `names` head a new one."""
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            for row in rows:
                writer.writerow(row)
                file.flush()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
