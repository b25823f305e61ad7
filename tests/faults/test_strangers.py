"""Models from strangers: refused in one sentence, before what they ask for is taken; and no code in any file is run."""

import ast
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import PROJECT

import runs
from shell import UserError

SHIPPED = PROJECT / "pretrained" / "improved.keras"


@pytest.fixture(scope="module")
def parts():
    """{member: bytes} of the shipped model."""
    with zipfile.ZipFile(SHIPPED) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path, parts, **changes):
    """Write the members `parts` with the `changes` of their JSON, {stem of a member: function of its value}."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            change = changes.get(name.partition(".")[0])
            archive.writestr(name, json.dumps(change(json.loads(content))) if change else content)
    return path


def recipe(**values):
    return lambda card: card | {"recipe": card["recipe"] | values}


CARDS = {
    "no numbers": lambda card: card | {"calibration": {"network": ["1", [0] * 4]}},
    "infinite": lambda card: card | {"calibration": {name: [1e999, [0] * 4] for name in card["calibration"]}},
    "no such members": lambda card: card | {"calibration": {}},
    "three shifts": lambda card: card | {"calibration": {name: [1, [0] * 3] for name in card["calibration"]}},
    "history": lambda card: card | {"history": 3},
    "scores": lambda card: card | {"scores": {"avg_F1_score": 1}},
    "thresholds": lambda card: card | {"thresholds": {"balanced": -1e300}},
    "more thresholds": lambda card: card | {"thresholds": {"\x1b[2J": 0.5}},
    "measured": lambda card: card | {"measured": {}},
    "seen": lambda card: card | {"seen": [{}]},
    "records": lambda card: card | {"seen": [1, 2]},
    "more": lambda card: card | {"more": 1},
    "list": lambda card: [card],
    "text": lambda card: "card",
    "seconds": recipe(seconds=1e9),
    "images": recipe(seconds=3600, nperseg=18000, noverlap=17999),
    "neurons": recipe(num_neurons=10**9),
    "no number": recipe(seconds=float("nan")),
    "a text": recipe(epochs="1"),
    "unknown": recipe(exec="rm"),
}


@pytest.mark.parametrize("change", CARDS.values(), ids=CARDS)
def test_an_absurd_card_is_refused(tmp_path, parts, change):
    path = packed(tmp_path / "a.keras", {runs.CARD: parts[runs.CARD]}, recipe=change)
    with pytest.raises(UserError, match=r"is not a model that this version of main.py saved"):
        runs.read_card(path)


def test_the_shipped_card_is_taken_and_nested_lists_are_not(tmp_path, parts):
    assert runs.read_card(packed(tmp_path / "a.keras", {runs.CARD: parts[runs.CARD]})).scores
    with pytest.raises(UserError, match="is not a model"):
        runs.read_card(packed(tmp_path / "b.keras", {runs.CARD: b"[" * 1_000_000}))


@pytest.mark.parametrize(
    ("member", "size"), [(runs.CARD, 30_000_000), (runs.CONFIG, 30_000_000), (runs.ONNX, 200_000_000), ("x", 2 << 30)]
)
def test_a_model_that_unpacks_to_too_much_is_refused_by_the_sizes_it_tells(tmp_path, parts, monkeypatch, member, size):
    path = packed(tmp_path / "a.keras", {runs.CARD: parts[runs.CARD], member: b""})
    content, told = bytearray(path.read_bytes()), member.encode()
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(told))
    content[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"unpacks (to|.* to)"):
        runs.load(path)


LIMITED = """
import resource, sys, runs, shell
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
shell.run_script(lambda: runs.load(sys.argv[1], light=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_three_gigabytes_of_zeros_take_no_memory(tmp_path, parts):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(runs.CARD, parts[runs.CARD])
        with archive.open("model.weights.h5", "w", force_zip64=True) as file:
            for _ in range(3000):
                file.write(bytes(1_000_000))
    assert path.stat().st_size < 6_000_000
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, path], text=True, capture_output=True, env=os.environ | {"PYTHONPATH": PROJECT}
    )
    assert process.returncode == 2 and "unpacks to more than 1 GB" in process.stderr, process.stderr
    assert "Traceback" not in process.stderr


def test_a_damaged_model_is_named_as_the_file_to_delete(tmp_path, parts):
    """Training would find such a model, unfinished, beside its checkpoint, and again each time it is started."""
    path = packed(tmp_path / "a.keras", {runs.CARD: parts[runs.CARD], runs.ONNX: parts[runs.ONNX][:5000]})
    with pytest.raises(UserError, match=rf"^{path} is damaged .*; name another, or delete it and train it again$"):
        runs.load(path, light=True)


def layer(**changes):
    """A change of a Keras configuration: its dense layer with `changes`."""

    def change(config):
        (dense,) = [each for each in config["config"]["layers"] if each["config"]["name"] == "dense"]
        dense |= changes | {"config": dense["config"] | changes.get("config", {})}
        return config

    return change


def repeated(config):
    """A configuration in which a layer without weights repeats its input a thousand million times."""
    (dropout,) = [each for each in config["config"]["layers"] if each["config"]["name"] == "dropout"]
    dropout |= {"class_name": "RepeatVector", "config": {"name": "dropout", "n": 10**9}}
    return config


FOREIGN = {
    "lambda": layer(class_name="Lambda", module="keras.layers"),
    "function": layer(config={"activation": {"class_name": "__lambda__", "config": {"value": "gA=="}}}),
    "module": layer(class_name="system", module="os"),
    "near": layer(class_name="Dense", module="keras_evil.layers"),
    "no module": layer(class_name="Dense", module=None),
    "inside": layer(config={"kernel_initializer": {"module": "shutil", "class_name": "rmtree", "config": {}}}),
}


def foreign(*nodes):
    """The bytes of a network in the ONNX format whose answer is called x."""
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("images", "x")]
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "graph", values[:1], values[1:])
    for node in graph.node:
        if node.op_type == "Constant":  # the side of a square
            side = helper.make_tensor("side", TensorProto.INT64, [2], [60_000, 60_000])
            node.attribute.append(helper.make_attribute("value", side))
    imports = [helper.make_opsetid("", 17)]
    return onnx.ModelProto.SerializeToString(helper.make_model(graph, opset_imports=imports, ir_version=9))


NETWORKS = {
    "constants of 14 GB": foreign(("Constant", [], ["side"]), ("ConstantOfShape", ["side"], ["x"])),
    "constants of 14 GB that are added up": foreign(
        ("Constant", [], ["side"]), ("ConstantOfShape", ["side"], ["y"]), ("ReduceSum", ["y"], ["x"])
    ),
    "the images": foreign(("Identity", ["images"], ["x"])),
    "no network": b"x" * 100,
}


@pytest.mark.parametrize("member", [runs.ONNX, pytest.param(runs.RHYTHM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_network_that_is_not_ours_is_refused_in_a_sentence(tmp_path, parts, member, network):
    path = packed(tmp_path / "a.keras", parts | {member: network})
    example = PROJECT / "pretrained" / "example.hea"
    limited = f"ulimit -v 12000000; exec {sys.executable} predict.py {example} --model {path}"
    process = subprocess.run(["bash", "-c", limited], cwd=PROJECT, text=True, capture_output=True)
    assert process.returncode == 1 and process.stdout.count("\n") <= 1 and "Traceback" not in process.stderr
    told = process.stdout + process.stderr
    assert f"{path} has a network that cannot answer" in told or f"{path} is damaged" in told


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_layers_that_are_not_kerass_are_refused_before_keras_sees_them(parts, change):
    config = json.loads(parts[runs.CONFIG])
    runs._check_layers(config, "a.keras")
    with pytest.raises(UserError, match=r"^a.keras has a layer .*; do not trust it"):
        runs._check_layers(change(config), "a.keras")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (layer(config={"units": 1_000_000}), "has more than 250,000,000 weights"),
        pytest.param(repeated, "outputs, which no model", marks=pytest.mark.slow),
        pytest.param(layer(config={"units": -3}), "is damaged", marks=pytest.mark.slow),
    ],
)
def test_an_absurd_layer_is_refused_before_it_takes_memory(tmp_path, parts, change, told):
    import keras

    add = keras.Layer.add_weight
    path = packed(tmp_path / "a.keras", {name: parts[name] for name in parts if name != runs.ONNX}, config=change)
    with pytest.raises(UserError, match=told) as caught:
        runs.load(path)
    assert "\n" not in str(caught.value) and keras.Layer.add_weight is add


@pytest.mark.slow
def test_every_network_of_ours_is_within_the_bounds(parts):
    import model
    from recipes import Recipe

    for backbone in ("compact", "vgg16"):
        made = model.build(Recipe(backbone=backbone, weights="random")).complete
        runs._check_outputs(made, "ours")
        runs._check_layers(json.loads(made.to_json()), "ours")
        assert sum(np.prod(variable.shape) for variable in made.variables) < runs.MOST_WEIGHTS / 4


# ── No code that a file brings ──────────────────────────────────────────────────────────────────────────────────────

FORBIDDEN = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib.load", "eval", "exec", "compile"}
FORBIDDEN |= {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle"}


def forbidden(source):
    """What the Python `source` does that could run code from a file or a name, [(line, what)]."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [(node.lineno, name) for name in names if name.partition(".")[0] in FORBIDDEN]
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
            called = called.replace("pd.", "pandas.")
            bad = called in FORBIDDEN or called.endswith(".read_pickle")
            bad |= given.get("shell") == "True" or given.get("safe_mode", "True") != "True"
            bad |= called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False"
            bad |= given.get("allow_pickle", "False") != "False"
            found += [(node.lineno, ast.unparse(node)[:80])] if bad else []
    return found


def test_no_module_runs_code_that_a_file_brings():
    scripts = [*PROJECT.glob("*.py"), *PROJECT.glob("benchmarks/*.py")]
    assert len(scripts) > 40
    assert not [(path.name, *found) for path in scripts for found in forbidden(path.read_text())]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "keras.models.load_model(path, safe_mode=False)",
        "pd.read_pickle(path)",
    ],
)
def test_the_test_above_finds_each(source):
    assert forbidden(source)
