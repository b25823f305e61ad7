"""The report's training as it was done, against features computed once: both timed in one run on this machine.

    python benchmarks/paper_run.py [--images 256]

The original passes every training image once and every validation image twice (its loss, then the callback's F1)
through InceptionResNetV2 in each of 100 epochs; its time is that many images at the measured rate of the plain forward
pass. Ours is the measured rate of `model.frozen_features` for the training and validation split, plus 100 real epochs
of the head with the callback and its saving of the model.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import model
import preprocessing
import runs
import training
from f1_training_callback import PhysioNetF1Callback
from recipes import Recipe
from shell import parser, run_script
from synthetic import recording

TRAINING, VALIDATION, EPOCHS = 5116, 1706, 100  # the report's split and epochs


def main():
    flags = parser(__doc__)
    flags.add_argument("--images", type=int, default=256, help="images over which the rates are measured")
    count = flags.parse_args().images
    recipe = Recipe(weights="random")
    rng = np.random.default_rng(0)
    signals = [recording("N", 30, rng) for _ in range(count)]
    recordings = preprocessing.Images(signals, [300] * count, recipe)
    images = recordings[:]
    network = model.build(recipe, images)
    network.base.predict_on_batch(images[: model.BATCH])  # compiled before the clock starts

    began = time.perf_counter()
    for start in range(0, count - count % model.BATCH, model.BATCH):
        network.base.predict_on_batch(images[start : start + model.BATCH])
    forward = (count - count % model.BATCH) / (time.perf_counter() - began)
    original = EPOCHS * (TRAINING + 2 * VALIDATION) / forward

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        model.frozen_features(network.base, recordings, folder=Path(folder))
        features = (TRAINING + VALIDATION) * (time.perf_counter() - began) / count

        x, y = (
            rng.normal(size=(TRAINING + VALIDATION, 1536)).astype(np.float32),
            rng.integers(0, 4, TRAINING + VALIDATION),
        )
        saves = []

        def save():
            began = time.perf_counter()
            runs.save(network.complete, runs.Card(recipe, [], "", ""), Path(folder) / "best.keras")
            saves.append(time.perf_counter() - began)

        scorer = PhysioNetF1Callback(x[TRAINING:], y[TRAINING:], save)
        began = time.perf_counter()
        training.fit(network.head, x[:TRAINING], y[:TRAINING], recipe, scorer)
        head = time.perf_counter() - began

    print(f"plain forward pass                        {forward:10.1f} images/s")
    print(f"the original, {EPOCHS} epochs at that rate       {original:10,.0f} s")
    print(f"ours: features, once                      {features:10,.0f} s")
    print(f"ours: {EPOCHS} epochs of the head                {head:10,.0f} s")
    print(f"      of which {len(saves)} saves of the model      {sum(saves):10,.0f} s")
    print(f"ratio                                     {original / (features + head):10.0f}")


if __name__ == "__main__":
    run_script(main)
