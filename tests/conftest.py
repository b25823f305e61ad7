"""Shared by the tests: small synthetic sets, the real set where it is at hand, and scripts run as a user runs them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import synthetic

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """40 synthetic recordings in an unpacked folder."""
    path = tmp_path_factory.mktemp("set") / "training2017"
    synthetic.write_dataset(path, count=40, seed=1)
    return path


@pytest.fixture(scope="session")
def archive(folder):
    """The same recordings as a zip file."""
    path = folder.parent / "training2017.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.iterdir()):
            file.write(member, f"training2017/{member.name}")
    return path


@pytest.fixture(scope="session")
def real_set():
    """The challenge's real set, which the environment variable TRAINING2017 names (a zip or folder)."""
    path = os.environ.get("TRAINING2017")
    if not path:
        pytest.skip("TRAINING2017 does not name the real recordings")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def script():
    """A function that runs a script of the project in `cwd` and returns the finished process."""

    def call(cwd, name, *arguments, timeout=400, **environment):
        offline = {
            "https_proxy": "http://127.0.0.1:9",
            "WANDB_API_KEY": "",
            "NETRC": str(PROJECT / "no-such-file"),
            "HOME": str(cwd),
        }
        return subprocess.run(
            [sys.executable, PROJECT / name, *map(str, arguments)],
            cwd=cwd,
            text=True,
            capture_output=True,
            timeout=timeout,
            env=os.environ | offline | environment,
        )

    return call


@pytest.fixture(scope="session")
def refusal():
    """A function that checks that a finished process ended as a user's mistake should, and returns the sentence."""

    def check(process, status=2):
        assert process.returncode == status, process.stderr
        assert "Traceback" not in process.stderr, process.stderr
        sentence = process.stderr.strip().splitlines()[-1]
        assert "error: " in sentence
        return sentence

    return check
