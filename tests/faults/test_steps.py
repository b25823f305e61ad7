"""A training killed, or on a disk that gets full, at one of its calls after the other: what steps.py does."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported TensorFlow")
@pytest.mark.parametrize("kind", ["kill", "full"])
def test_the_same_command_ends_a_stopped_training_as_if_it_had_not_stopped(tmp_path, kind):
    """At every 12th call; `python tests/faults/steps.py` tries all, which takes two hours."""
    script = Path(__file__).with_name("steps.py")
    process = subprocess.run(
        [sys.executable, script, kind, "training", tmp_path / "here", "6", "12"], text=True, capture_output=True
    )
    print(process.stdout)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "all survived" in process.stdout
