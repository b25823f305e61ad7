"""A loopback stand-in for a Weights & Biases server, for tests with the real `wandb` client.

It speaks as much of the GraphQL, file-stream and upload protocol as the client (0.31) uses to check a
login, record runs, sync offline runs and run sweeps with agents. Point client processes at it with `env`::

    with WandbServer() as server:
        subprocess.run([sys.executable, "train.py"], env={**os.environ, **server.env})
        assert [run["state"] for run in server.runs.values()] == ["finished"]

Standard library only, but for PyYAML: sweep configs arrive as YAML, and `wandb` itself depends on PyYAML.
"""

import base64
import contextlib
import itertools
import json
import math
import random
import re
import socket
import tempfile
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import yaml

ENTITY = "tester"
KEY = "k" * 40  # the client itself refuses anything shorter


class ApiError(Exception):
    """An answer other than 200, with the message that the client shows to its user."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def draw(spec, rng):
    """Draw one value for a sweep parameter, `spec` being its entry in the sweep config."""
    if "parameters" in spec:
        return {name: draw(inner, rng) for name, inner in spec["parameters"].items()}
    if "value" in spec:
        return spec["value"]
    if "values" in spec:
        return rng.choices(spec["values"], spec.get("probabilities"))[0]
    low, high, kind = spec["min"], spec["max"], spec.get("distribution", "uniform")
    if kind == "int_uniform":
        return rng.randint(low, high)
    if kind.endswith("log_uniform_values"):
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    elif kind in ("uniform", "q_uniform"):
        value = rng.uniform(low, high)
    else:
        raise ApiError(400, f"distribution {kind} is not supported by this test server")
    if kind.startswith("q_"):
        value = round(value / spec.get("q", 1)) * spec.get("q", 1)
    return min(max(value, low), high)  # rounding may have left the range


class WandbServer:
    """The server; as a context manager it listens in a thread on a free port of 127.0.0.1.

    With `exhausted_after`, a sweep ends by itself after so many runs, as with `run_cap` in its config.
    The records below stay readable after the server has stopped:

    url, key, env: the address, the only key it accepts, and what a client's environment needs.
    sweeps: id -> {"config": dict, "project", "entity", "state", "runs": [names], "agents": [ids]}.
    runs: name -> {"sweep": id or None, "config": plain dict, "history": rows, "summary": dict,
        "exit_code": int or None, "files": names uploaded, "state": pending/running/finished/failed,
        "params": what the sweep handed out or None, "project", "entity", "display_name",
        "created_at"}.
    artifacts: id -> {"name", "type", "run", "metadata": dict, "files": names uploaded, "committed": bool}.
    stop: names of runs that their agent shall be told to stop; for tests to fill.
    unknown: what was asked for and not understood or not answered properly.
    """

    def __init__(self, exhausted_after=None, seed=0):
        self.exhausted_after, self.key, self.url, self.env = exhausted_after, KEY, None, {}
        self.sweeps, self.runs, self.stop, self.unknown = {}, {}, set(), []
        self.artifacts = {}
        self._agents, self._connections = {}, []  # agent ID -> sweep ID; sockets
        self._rng, self.lock = random.Random(seed), threading.RLock()

    def __enter__(self):
        self._home = tempfile.TemporaryDirectory(prefix="wandb-server-", ignore_cleanup_errors=True)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.env = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.key, "NO_PROXY": "127.0.0.1"}
        self.env["WANDB_ERROR_REPORTING"] = "false"  # no telemetry
        # Nothing is read from or left in the user's home.
        homes = {"WANDB_CONFIG_DIR": "config", "WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data"}
        for name, part in {**homes, "NETRC": "netrc"}.items():
            self.env[name] = str(Path(self._home.name, part))
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._http.shutdown()
        self._http.server_close()
        for connection in self._connections:  # those kept alive would be served on
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _ in range(5):  # a client's monitor process may still be writing its last log line
            self._home.cleanup()
            if not Path(self._home.name).exists():
                break
            time.sleep(0.1)

    def graphql(self, body):
        """Answer a GraphQL request with its `data`; `_gql_X` answers operation X, `v` are its variables."""
        match = re.search(r"\b(?:query|mutation)\s+(\w+)", body["query"])
        handler = getattr(self, f"_gql_{match[1]}", None) if match else None
        if handler is None:
            self.unknown.append(" ".join(body["query"].split()))
            return {}
        return handler(body.get("variables") or {})

    # --- the user and the server ---

    def _gql_Viewer(self, v):
        user = {"id": "user", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "admin": False}
        more = {"email": f"{ENTITY}@example.com", "flags": "{}", "deletedAt": None, "apiKeys": {"edges": []}}
        return {"viewer": {**user, **more, "teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    _gql_GetViewer = _gql_GetDefaultEntity = _gql_Viewer

    def _gql_ServerFeaturesQuery(self, v):
        return {"serverInfo": {"features": [], "cliVersionInfo": {}}}  # none: the client keeps to basics

    _gql_ServerInfo = _gql_ServerFeaturesQuery

    def _gql_OrganizationCoreWeaveOrganizationID(self, v):
        return {"entity": {"organization": None}}

    # --- runs ---

    def _gql_UpsertBucket(self, v):
        name = v.get("name") or v["id"]
        inserted = name not in self.runs
        run = self._new_run(name, v.get("entity"), v.get("project")) if inserted else self.runs[name]
        run["display_name"] = v.get("displayName") or run["display_name"]
        run["sweep"] = v.get("sweep") or run["sweep"]
        run["state"] = v.get("state") or ("running" if run["state"] == "pending" else run["state"])
        if v.get("config"):
            items = json.loads(v["config"]).items()
            run["config"] = {key: item["value"] for key, item in items if key != "_wandb"}
        if v.get("summaryMetrics"):
            run["summary"] = json.loads(v["summaryMetrics"])
        return {"upsertBucket": {"bucket": self._run_node(name), "inserted": inserted}}

    def _gql_RunResumeStatus(self, v):
        return {"model": {"bucket": self._run_node(v["name"])}}

    def _gql_CreateRunFiles(self, v):
        base = f"{self.url}/upload/{quote(v['run'])}/"
        files = [{"name": name, "uploadUrl": base + quote(name)} for name in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def _gql_Run(self, v):
        return {"project": {"run": self._run_node(v["name"])}}

    _gql_RunState = _gql_Run

    def _gql_Runs(self, v):
        """A project's runs; only a sweep's if the filters name one; sorted if by a summary metric."""
        sweep, order = re.search(r'"sweep": *"(\w+)"', v.get("filters") or ""), v.get("order") or ""
        chosen = {name: run for name, run in self.runs.items() if run["project"] == v["project"]}
        names = [name for name, run in chosen.items() if not sweep or run["sweep"] == sweep[1]]
        if metric := re.search(r"summary_metrics\.(.+)", order):
            names = [name for name in names if metric[1] in self.runs[name]["summary"]]
            names.sort(key=lambda name: self.runs[name]["summary"][metric[1]], reverse=order[0] == "-")
        edges = [{"node": self._run_node(name), "cursor": name} for name in names]
        runs = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"project": {"internalId": 1, "runCount": len(names), "readOnly": False, "runs": runs}}

    # --- artifacts: their files, and the manifest that names them, are uploaded as a run's files are ---

    def _gql_ArtifactType(self, v):
        return {"project": None}  # no such type yet

    def _gql_CreateArtifact(self, v):
        given = v["input"]
        name = f"artifact{len(self.artifacts) + 1}"
        facts = json.loads(given.get("metadata") or "{}")
        run = given.get("runName")
        self.artifacts[name] = {"name": given["artifactCollectionName"], "type": given["artifactTypeName"], "run": run}
        self.artifacts[name] |= {"metadata": facts, "files": set(), "committed": False}
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _gql_CreateArtifactManifest(self, v):
        url = f"{self.url}/upload/{quote(v['runName'])}/{quote(v['name'])}"
        file = {"id": "file", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": v["artifactID"], "file": file}}}

    def _gql_UpdateArtifactManifest(self, v):
        url = f"{self.url}/upload/{self.artifacts[v['artifactManifestID']]['run']}/manifest"
        file = {"id": "file", "uploadUrl": url, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": v["artifactManifestID"], "file": file}}}

    def _gql_CreateArtifactFiles(self, v):
        edges = []
        for file in v["input"]["artifactFiles"]:
            artifact = self.artifacts[file["artifactID"]]
            artifact["files"].add(file["name"])
            url = f"{self.url}/upload/{quote(artifact['run'])}/{quote(file['name'])}"
            node = {"storagePath": file["name"], "uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None}
            edges.append({"node": node | {"name": file["name"], "artifact": {"id": file["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _gql_CommitArtifact(self, v):
        self.artifacts[v["artifactID"]]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "digest"}}}

    def file_stream(self, name, body):
        """Take in a piece of a run's history, summary and exit code."""
        run = self.runs[name]
        for file, chunk in (body.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                rows, start = [json.loads(line) for line in chunk["content"]], chunk["offset"]
                run["history"][start : start + len(rows)] = rows  # a retry repeats rows it sent before
            elif file == "wandb-summary.json":
                run["summary"] = json.loads(chunk["content"][-1])
        if body.get("complete"):
            run["exit_code"] = body.get("exitcode", 0)
            run["state"] = "failed" if run["exit_code"] else "finished"
        return {"limits": {}}

    def _new_run(self, name, entity, project, sweep=None, params=None):
        where = {"entity": entity or ENTITY, "project": project or "uncategorized", "display_name": name}
        run = {"sweep": sweep, "params": params, "config": dict(params or {}), "history": [], "summary": {}}
        begun = {"created_at": datetime.now(UTC).isoformat()}
        self.runs[name] = {**run, **where, **begun, "exit_code": None, "files": set(), "state": "pending"}
        return self.runs[name]

    def _run_node(self, name):
        """A run with all that the client's queries ask of one (it ignores what it did not ask for)."""
        if (run := self.runs.get(name)) is None:
            return None
        config = json.dumps({key: {"value": value} for key, value in run["config"].items()})
        place = {"name": run["project"], "entity": {"name": run["entity"]}}
        ids = {"id": name, "name": name, "displayName": run["display_name"], "sweepName": run["sweep"]}
        ids["createdAt"] = run["created_at"]
        state = {"state": run["state"], "projectId": "1", "project": place, "exitcode": run["exit_code"]}
        texts = {"config": config, "summaryMetrics": json.dumps(run["summary"]), "systemMetrics": "{}"}
        tails = {"historyTail": json.dumps([json.dumps(r) for r in run["history"][-1:]]), "eventsTail": "[]"}
        counts = {"historyLineCount": len(run["history"]), "eventsLineCount": 0, "logLineCount": 0}
        return {**ids, **state, **texts, **tails, **counts, "tags": []}

    # --- sweeps and agents ---

    def _gql_UpsertSweep(self, v):
        sweep_id = v.get("id") or "".join(self._rng.choices("abcdefghijkmnpqrstuvwxyz23456789", k=8))
        if sweep_id not in self.sweeps:
            where = {"project": v.get("projectName") or "uncategorized", "entity": v.get("entityName")}
            self.sweeps[sweep_id] = {**where, "state": "RUNNING", "runs": [], "agents": []}
        sweep = self.sweeps[sweep_id]
        sweep["entity"], sweep["state"] = sweep["entity"] or ENTITY, v.get("state") or sweep["state"]
        if v.get("config"):
            sweep["config"] = yaml.safe_load(v["config"])
        return {"upsertSweep": {"sweep": self._sweep_node(sweep_id), "configValidationWarnings": []}}

    def _gql_GetSweep(self, v):
        return {"project": {"sweep": self._sweep_node(v.get("sweep") or v.get("name"))}}

    _gql_SweepWithRuns = _gql_GetSweepState = _gql_GetSweep

    def _gql_CreateAgent(self, v):
        if v["sweep"] not in self.sweeps:
            raise ApiError(404, f"could not find sweep {v['sweep']} during createAgent")
        agent = f"agent{len(self._agents) + 1}"
        self._agents[agent] = v["sweep"]
        self.sweeps[v["sweep"]]["agents"].append(agent)
        return {"createAgent": {"agent": {"id": agent}}}

    def _gql_Heartbeat(self, v):
        """An agent tells which runs it has; an idle one gets another, or is sent home if none is left."""
        if v["id"] not in self._agents:
            raise ApiError(404, "agent not found")
        sweep_id, active = self._agents[v["id"]], json.loads(v.get("runState") or "{}")
        sweep = self.sweeps[sweep_id]
        if sweep["state"] == "CANCELED":  # at "exit" an agent kills the runs that it has
            commands = [{"type": "exit"}]
        elif active or sweep["state"] == "PAUSED":
            commands = [{"type": "stop", "run_id": name} for name in active if name in self.stop]
        elif sweep["state"] == "FINISHED" or (params := self._next_params(sweep)) is None:
            sweep["state"] = "FINISHED"
            commands = [{"type": "exit"}]
        else:
            name = f"{sweep_id}{len(sweep['runs']) + 1}"
            sweep["runs"].append(name)
            self._new_run(name, sweep["entity"], sweep["project"], sweep_id, params)
            args = {key: {"value": value} for key, value in params.items()}
            program = sweep["config"].get("program")
            commands = [{"type": "run", "run_id": name, "program": program, "args": args}]
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def _next_params(self, sweep):
        """The parameters of a sweep's next run, or None when it has had all its runs."""
        config, done = sweep["config"], len(sweep["runs"])
        if done in (self.exhausted_after, config.get("run_cap")):
            return None
        specs = config.get("parameters", {})
        if config.get("method") != "grid":  # "bayes" is random, too: nothing here looks at the metric
            return {name: draw(spec, self._rng) for name, spec in specs.items()}
        grid = itertools.product(*(spec.get("values", [spec.get("value")]) for spec in specs.values()))
        point = next(itertools.islice(grid, done, None), None)
        return None if point is None else dict(zip(specs, point, strict=True))

    def _sweep_node(self, sweep_id):
        if (sweep := self.sweeps.get(sweep_id)) is None:
            return None
        project = {"id": "1", "name": sweep["project"], "entity": {"id": "1", "name": sweep["entity"]}}
        runs = {"edges": [{"node": self._run_node(name)} for name in sweep["runs"]]}
        node = {"id": sweep_id, "name": sweep_id, "state": sweep["state"], "project": project, "runs": runs}
        return {**node, "config": yaml.safe_dump(sweep["config"]), "method": sweep["config"].get("method")}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet; in two, the second waits for the first one's ACK

    def setup(self):
        self.server.owner._connections.append(self.request)
        super().setup()

    def log_message(self, *args):
        """Keep requests off stderr."""

    def _handle(self):
        owner = self.server.owner
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = 200
        try:
            with owner.lock:
                answer = self._answer(owner, unquote(self.path), raw)
        except Exception as error:
            status = getattr(error, "status", 400)  # not 500, which the client would retry for long
            answer = {"errors": [{"message": str(error)}], "data": None}
            if not isinstance(error, ApiError):
                owner.unknown.append(f"{self.path}: {error!r}")
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, owner, path, raw):
        if upload := re.fullmatch(r"/upload/([^/]+)/(.+)", path):  # comes without the key
            owner.runs[upload[1]]["files"].add(upload[2])
            return {}
        key = base64.b64encode(f"api:{owner.key}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {key}":
            raise ApiError(401, "user is not logged in")
        if path == "/graphql":
            return {"data": owner.graphql(json.loads(raw))}
        if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            return owner.file_stream(stream[1], json.loads(raw))
        owner.unknown.append(f"{self.command} {path}")
        return {}

    do_GET = do_POST = do_PUT = _handle
