"""Weights & Biases, which never stops a run: started on request, imported only where it starts."""

import contextlib
import netrc
import os
import ssl
import urllib.error
import urllib.request
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlparse

from recipes import CLASSES
from shell import UserError, say

PROJECT = "ecg-classification"
SERVER = "https://api.wandb.ai"
MODES = ("auto", "online", "offline", "disabled")


def add_flag(parser, default="auto"):
    """Add `--wandb` to an `argparse` parser."""
    parser.add_argument(
        "--wandb",
        choices=MODES,
        default=default,
        help="Weights & Biases: auto tracks online when logged in; offline keeps files for `wandb sync`",
    )


def logged_in():
    """Whether a W&B key is at hand, in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", SERVER)).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def own_mode():
    """(offline, disabled or None; which one asks) by W&B's own variables, which win over `auto`."""
    if os.environ.get("WANDB_DISABLED", "").casefold() in ("true", "1", "yes"):
        return "disabled", "WANDB_DISABLED"
    asked = os.environ.get("WANDB_MODE", "")
    return {"disabled": "disabled", "offline": "offline", "dryrun": "offline"}.get(asked), f"WANDB_MODE={asked}"


def start(mode, name, config):
    """A W&B run called `name` with `config` (dict), or None where nothing is tracked.

    `auto` tracks as W&B's own variables say, else online when logged in, and otherwise not; a server that does not
    answer turns it to offline. Raises `UserError` when `online` is asked for without a login, or W&B is asked for and
    not installed.
    """
    asked, variable = own_mode()
    if mode == "auto" and asked:
        say(f"Weights & Biases: {asked}, by {variable}")
        return start_offline(name, config, None) if asked == "offline" else None
    if mode == "disabled" or (mode == "auto" and not logged_in()):
        if mode == "auto":
            say("Weights & Biases: not logged in, so nothing is tracked (wandb login, or --wandb offline)")
        return None
    if mode == "online" and not logged_in():
        raise UserError("--wandb online needs a login: run `wandb login`, set WANDB_API_KEY, or pass --wandb offline")
    try:
        import wandb
    except ImportError:
        if mode == "auto":
            return None
        raise UserError(f"--wandb {mode} needs the wandb package: pip install wandb") from None
    options = {"project": os.environ.get("WANDB_PROJECT", PROJECT), "name": name, "config": config}
    try:
        return wandb.init(mode="offline" if mode == "offline" else "online", settings=settings(), **options)
    except (wandb.Error, OSError) as error:
        if mode != "auto":
            raise UserError(f"Weights & Biases did not start ({error}); pass --wandb disabled") from error
        say(f"Weights & Biases does not answer ({error}); tracking offline, to be sent by `wandb sync`")
        return start_offline(name, config, None)


def start_offline(name, config, group):
    """An offline W&B run for `wandb sync`; None where wandb is disabled, not installed or cannot write."""
    if own_mode()[0] == "disabled":
        return None
    try:
        import wandb
    except ImportError:
        return None
    try:
        return wandb.init(
            mode="offline",
            name=name,
            config=config,
            group=group,
            settings=settings(),
            project=os.environ.get("WANDB_PROJECT", PROJECT),
        )
    except (wandb.Error, OSError) as error:
        say(f"Weights & Biases cannot keep an offline run ({error}); going on without")
        return None


class Stopped(Exception):
    """A trial of a sweep shall end early."""


def ends_trial(error):
    """Whether by `error` a trial is ended early; W&B's agent ends its thread by an exception without words."""
    return isinstance(error, Stopped) or (type(error) is Exception and not error.args)


class Listener:
    """A W&B run, or None, as a training tells it of each epoch: what fails there is said once, and ends no training."""

    def __init__(self, run):
        self.run = run

    def log(self, row, step):
        """Tell the run of `row`, a dict, in `step`; nothing any more after a fault."""
        try:
            if self.run:
                self.run.log(row, step=step)
        except Exception as error:
            if ends_trial(error):
                raise
            say(f"Weights & Biases is told no more of this training ({type(error).__name__}: {str(error)[:120]!r})")
            self.run = None


def hand_over(tracker, give):
    """Call `give()`, which hands results to a W&B run, and end it; what fails there is said, for they are kept here."""
    try:
        give()
        tracker.finish()
    except Exception as error:  # of any kind: the package checks the server's answers by others of its own
        say(f"Weights & Biases did not take all of the run ({type(error).__name__}: {str(error)[:120]!r})")
        with contextlib.suppress(Exception):  # else the next run of this process would be taken for this one
            tracker.finish()


def log_model(tracker, path, name, facts, scores=()):
    """Hand the saved model in `path` to a W&B run as an artifact called `name`, with `facts` (dict) and its hash.

    scores: {name: value} of the model as it is kept, for the run's summary.
    """
    import wandb

    tracker.summary.update({f"kept_{key}": value for key, value in dict(scores).items()})

    digest = sha256(Path(path).read_bytes()).hexdigest()
    artifact = wandb.Artifact(name, type="model", metadata=facts | {"sha256": digest})
    artifact.add_file(str(path))
    tracker.log_artifact(artifact)


def log_evaluation(tracker, metrics, hardest, signals, figures):
    """Hand to a W&B run what evaluation.py leaves behind.

    metrics: of metrics.json, whose scores become the run's summary with the ends of their intervals; hardest: rows of
    `benchmark.hardest`, a table with the traces `signals`, {record: ((samples,) in 1/1000 mV, Hz)}; figures: paths.
    """
    import wandb

    import plotting
    import scoring

    pairs = {f"F1_{place}": (metrics["F1"][name], metrics["F1_interval"][name]) for place, name in enumerate(CLASSES)}
    pairs |= {key: (metrics[key], metrics[f"{key}_interval"]) for key in scoring.OVERALL if key in metrics}
    for key, (value, interval) in pairs.items():
        low, high = interval or (None, None)
        tracker.summary.update({key: value, f"{key}_low": low, f"{key}_high": high})
    columns = ["record", "label", "class", *scoring.COLUMNS]
    table = wandb.Table(columns=[*columns, "trace"])
    for row in hardest[columns].to_numpy():
        table.add_data(*row, wandb.Image(plotting.thumbnail(*signals[row[0]])))
    drawn = {path.stem: wandb.Image(str(path)) for path in figures}
    tracker.log({"hardest": table, **drawn})


def settings():
    """W&B settings that keep a run quiet, quick to start (no list of packages) and bounded when the server is gone."""
    import wandb

    return wandb.Settings(silent=True, console="off", init_timeout=30, finish_timeout=60, x_save_requirements=False)


def obstacle():
    """Why no W&B sweep can be run here, decided within 5 s; None where logged in and the server answers."""
    asked, variable = own_mode()
    if asked:
        return f"{asked}, by {variable}"
    if not logged_in():
        return "not logged in (wandb login)"
    try:
        import wandb
    except ImportError:
        return "the wandb package is not installed"
    # The package's own service goes on trying, and at exit the process waits for it.
    server = os.environ.get("WANDB_BASE_URL", SERVER)
    try:
        urllib.request.urlopen(server, timeout=2).close()
    except urllib.error.HTTPError:
        pass  # an answer, too
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # a certificate that the package may have been told to trust
            return f"{server} does not answer ({reason})"
    patience = os.environ.get("WANDB_HTTP_TIMEOUT")
    os.environ["WANDB_HTTP_TIMEOUT"] = "2"
    try:
        return None if wandb.login(prompt=False, verify=True) else "not logged in (wandb login)"
    except wandb.Error as error:
        return f"it does not accept the login ({' '.join(str(error).split())[:120]})"
    finally:
        del os.environ["WANDB_HTTP_TIMEOUT"]
        if patience:
            os.environ["WANDB_HTTP_TIMEOUT"] = patience
