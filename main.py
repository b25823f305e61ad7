"""Explore the recordings, then train the final model.

    python main.py                                  the report's run, on data/training2017.zip (downloaded if absent)
    python main.py --weights random --epochs 5      without ImageNet weights: the machinery, not the result
    python main.py --data FOLDER --labels v3 --run mine

Writes figures/class_distribution.png, sequence_length_distribution.png and example_recordings.png, data/split.csv,
models/RUN.keras (best by validation F1), models/RUN.csv (one row per epoch), models/RUN.json (settings) and
figures/RUN/training_f1.png.
"""

from dataclasses import asdict
from pathlib import Path

import dataset
import preprocessing
import recipes
import runs
import tracking
from recipes import CLASSES
from shell import UserError, make_folders, parser, run, run_name, say


def main():
    flags = parser(__doc__)
    flags.add_argument(
        "--data", type=Path, default=dataset.DEFAULT_DATA, metavar="PATH", help="zip or folder of recordings"
    )
    recipes.add_flags(flags)
    flags.add_argument(
        "--run", type=run_name, metavar="NAME", help="name of the run's files (default: the recipe's name)"
    )
    tracking.add_flag(flags)
    arguments = flags.parse_args()
    recipe = recipes.from_flags(flags, arguments)
    name = arguments.run or recipe.name
    if recipe.weights not in ("imagenet", "random") and not Path(recipe.weights).is_file():
        raise UserError(f"{recipe.weights} does not exist; pass --weights imagenet, random or a weights file")
    make_folders("data", "models", "figures", f"figures/{name}")

    table = dataset.read_recordings(arguments.data, recipe.labels)
    explore(table, recipe)
    table["split"] = dataset.split(table, recipe.seed)
    dataset.write_split(table)
    say(f"{len(table):,} recordings: " + ", ".join(f"{n:,} {part}" for part, n in table.split.value_counts().items()))

    tracker = tracking.start(arguments.wandb, name, asdict(recipe))
    history = train(table, recipe, name, arguments.data, tracker)
    if tracker:
        tracker.finish()
    best = history.loc[history.avg_F1_score.idxmax()]
    print(
        f"best validation F1 in epoch {best.epoch:.0f}: 4-class {best.avg_F1_score:.4f}, "
        f"challenge (N, A, O) {best.challenge_F1:.4f}"
    )
    print(
        f"wrote models/{name}.keras and figures/{name}/training_f1.png; "
        f"next: python evaluation.py{'' if name == 'paper' else f' --run {name}'}"
    )


def explore(table, recipe):
    """Draw Figures 1 and 2, and the first recording of each class that lasts at least 20 s."""
    import plotting

    plotting.class_distribution(table.label, "figures/class_distribution.png")
    seconds = table.signal.map(len) / table.sampling_rate
    plotting.sequence_length_distribution(seconds, "figures/sequence_length_distribution.png")
    axes = preprocessing.image_axes(recipe)
    examples = {}
    for label in CLASSES:
        of_class = table[(table.label == label) & (seconds >= 20)]
        if len(of_class):
            record, signal, rate = of_class[["record", "signal", "sampling_rate"]].iloc[0]
            examples[label] = (record, signal, rate, preprocessing.image(signal, rate, recipe), *axes)
    plotting.example_recordings(examples, "figures/example_recordings.png")
    say("figures/class_distribution.png, sequence_length_distribution.png and example_recordings.png are drawn")


def train(table, recipe, name, data, tracker):
    """Train `recipe` on the split in `table`, keep the best model in models/NAME.keras, return the epochs' table.

    data: where the recordings are, for the run's settings; tracker: a Weights & Biases run, or None.
    """
    import numpy as np

    import model
    import plotting
    import training
    from f1_training_callback import PhysioNetF1Callback

    parts = {part: np.flatnonzero(table.split == part) for part in ("train", "validation")}
    labels = table.label.map(CLASSES.index).to_numpy()
    images = {
        part: preprocessing.Images(table.signal.iloc[rows], table.sampling_rate.iloc[rows], recipe)
        for part, rows in parts.items()
    }
    network = model.build(recipe, images["train"][: model.BATCH])
    if recipe.fine_tune:
        trained, inputs = network.complete, images
    else:
        features = model.frozen_features(network.base, table, recipe, wanted=table.split != "test")
        trained, inputs = network.head, {part: features[rows] for part, rows in parts.items()}
    seen = table.record[table.split != "test"]
    scorer = PhysioNetF1Callback(
        inputs["validation"],
        labels[parts["validation"]],
        save=lambda: model.save(network.complete, recipe, seen, f"models/{name}.keras"),
        chunk_size=model.BATCH if recipe.fine_tune else 256,
        run=tracker,
    )
    runs.write_settings(name, data, asdict(recipe))
    history = training.train(trained, inputs["train"], labels[parts["train"]], recipe, scorer, f"models/{name}.csv")
    plotting.training_f1(history, f"figures/{name}/training_f1.png")
    return history


if __name__ == "__main__":
    run(main)
