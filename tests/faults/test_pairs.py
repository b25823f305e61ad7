"""Two scripts at once in one folder: what pairs.py does."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_that_start_at_once_end_as_one_after_the_other(tmp_path):
    """Two of them, with nothing done before; `python tests/faults/pairs.py` tries every two scripts."""
    script = Path(__file__).with_name("pairs.py")
    command = [sys.executable, script, tmp_path / "pairs", "main", "table"]
    process = subprocess.run(command, text=True, capture_output=True)
    print(process.stdout)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "3 pairs tried, all survived" in process.stdout and "refused, then as alone" in process.stdout
