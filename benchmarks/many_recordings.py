"""The time and memory of predict.py for many recordings, by one process and by two: all in one run on this machine.

    python benchmarks/many_recordings.py [--count 1000] [--dask]

Each line is a run of `predict.py --csv FILE` over as many synthetic recordings of 9 to 61 s: its time from start to
end, of which the time per recording leaves out that of a run over one recording; and the memory of its largest process.
With --dask a Dask cluster of two worker processes on this machine answers them once more, whose memory is not counted.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from shell import parser, run_script
from synthetic import write_dataset

PROJECT = Path(__file__).parent.parent


def main():
    flags = parser(__doc__)
    flags.add_argument("--count", type=int, default=1000, help="recordings; memory is compared with a tenth of them")
    flags.add_argument("--dask", action="store_true", help="also by a Dask cluster")
    arguments = flags.parse_args()
    count = arguments.count
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder, "set"), count=count, seed=0)
        paths = sorted(Path(folder, "set").glob("*.hea"))
        runs = {}
        print(f"{'recordings':>10}{'workers':>9}{'seconds':>9}{'MB':>6}{'ms per recording':>18}")
        for number, workers in (
            (1, 1),
            (count // 10, 1),
            (count, 1),
            (count, 2),
            *[(count, "Dask, 2")] * arguments.dask,
        ):
            how = on_dask() if workers == "Dask, 2" else contextlib.nullcontext(("--workers", str(workers)))
            with how as options:
                seconds, memory = measured(paths[:number], options, Path(folder, f"{number}-{workers}.csv"))
            runs[number, workers] = seconds, memory
            each = 1000 * (seconds - runs[1, 1][0]) / number
            print(f"{number:>10,}{workers:>9}{seconds:>9.1f}{memory:>6.0f}{each:>18.0f}", flush=True)
    print(
        f"memory of {count:,} over that of {count // 10:,} recordings: {ratio(runs, 1, (count, 1), (count // 10, 1))}"
    )
    print(f"time by one process over that by two: {ratio(runs, 0, (count, 1), (count, 2))}")


@contextlib.contextmanager
def on_dask():
    """The flags of predict.py by which a Dask cluster of two worker processes, which lives meanwhile, answers."""
    from distributed import LocalCluster

    os.environ |= {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}  # of the workers
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield "--dask", cluster.scheduler_address


def ratio(runs, value, one, other):
    return f"{runs[one][value] / runs[other][value]:.2f}"


def measured(paths, options, table):
    """(seconds, MB of the largest process) of a run of predict.py with `options` over `paths` into the file `table`."""
    command = [sys.executable, PROJECT / "predict.py", *paths, "--csv", table, *options]
    # A process of its own for each, whose children's memory the system tells when it ends.
    counted = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:], stdout=sys.stderr); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", counted, *map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    kilobytes = int(process.stdout) / (1024 if sys.platform == "darwin" else 1)
    return time.perf_counter() - began, kilobytes / 1024


if __name__ == "__main__":
    run_script(main)
