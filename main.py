"""Explore the recordings, then train the final model.

    python main.py                                  the report's run, on data/training2017.zip (downloaded if absent)
    python main.py --weights random --epochs 5      without ImageNet weights: the machinery, not the result
    python main.py --recipe improved                our own recipe: half an hour on a slow CPU
    python main.py --recipe improved --labels v3 --folds FILE.csv       a model and a score for each fold
    python main.py --data FOLDER --labels v3 --run mine

The same command continues a training that was interrupted.

Writes figures/class_distribution.png, sequence_length_distribution.png and example_recordings.png, data/split.csv,
models/RUN.keras (best by validation F1), models/RUN.csv (one row per epoch), models/RUN.json (settings) and
figures/RUN/training_f1.png. With --folds there is no data/split.csv, the rest is written for each of RUN-fold0,
RUN-fold1 …, and their scores are in figures/RUN/folds.json and fold_predictions.csv.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import dataset
import preprocessing
import recipes
import runs
import tracking
from recipes import CLASSES
from shell import UserError, make_folders, parser, run, run_name, say, writing


def main():
    flags = parser(__doc__)
    flags.add_argument(
        "--data", type=Path, default=dataset.DEFAULT_DATA, metavar="PATH", help="zip or folder of recordings"
    )
    recipes.add_flags(flags)
    flags.add_argument(
        "--run", type=run_name, metavar="NAME", help="name of the run's files (default: the recipe's name)"
    )
    flags.add_argument(
        "--folds",
        nargs="?",
        const="",
        metavar="FILE",
        help="cross-validate: a CSV file of record,fold0,fold1,… with train, valid or test; without a file, five "
        "stratified folds",
    )
    tracking.add_flag(flags)
    arguments = flags.parse_args()
    recipe = recipes.from_flags(flags, arguments)
    name = arguments.run or recipe.name
    if recipe.weights not in ("imagenet", "random") and not Path(recipe.weights).is_file():
        raise UserError(f"{recipe.weights} does not exist; pass --weights imagenet, random or a weights file")
    if recipe.weights == "random" and recipe.backbone != "compact":
        say(f"note: {recipe.backbone} starts with random weights")
    if arguments.folds and not Path(arguments.folds).is_file():
        raise UserError(f"--folds {arguments.folds} does not exist; name a CSV file of record,fold0,fold1,…")
    make_folders("data", "models", "figures", f"figures/{name}")

    if Path(f"models/{name}.keras").exists() and not Path(f"models/{name}.checkpoint.npz").exists():
        say(f"note: models/{name}.keras of an earlier run will be replaced; --run NAME would keep it")
    table = dataset.read_recordings(arguments.data, recipe.labels)
    explore(table, recipe)
    if arguments.folds is not None:
        return cross_validate(table, recipe, name, arguments)
    table["split"] = dataset.split(table, recipe.split_seed, recipe.seed)
    dataset.write_split(table)
    say(f"{len(table):,} recordings: " + ", ".join(f"{n:,} {part}" for part, n in table.split.value_counts().items()))

    train(table, recipe, name, arguments)
    print(
        f"wrote models/{name}.keras and figures/{name}/training_f1.png; "
        f"next: python evaluation.py{'' if name == 'paper' else f' --run {name}'}"
    )


def explore(table, recipe):
    """Draw Figures 1 and 2, and the first recording of each class that lasts at least 20 s."""
    import plotting

    plotting.class_distribution(table.label, "figures/class_distribution.png")
    seconds = dataset.seconds(table)
    plotting.sequence_length_distribution(seconds, "figures/sequence_length_distribution.png")
    axes = preprocessing.image_axes(recipe)
    examples = {}
    for label in CLASSES:
        of_class = table[(table.label == label) & (seconds >= 20)]
        if len(of_class):
            record, signal, rate = of_class[["record", "signal", "sampling_rate"]].iloc[0]
            image = preprocessing.image(preprocessing.prepare(signal, rate, recipe), recipe)
            examples[label] = (record, signal, rate, *preprocessing.shown(image, recipe), *axes)
    plotting.example_recordings(examples, "figures/example_recordings.png")
    say("figures/class_distribution.png, sequence_length_distribution.png and example_recordings.png are drawn")


def cross_validate(table, recipe, name, arguments):
    """Train and score `recipe` on each fold; print every fold, their mean and deviation, and the pooled score.

    A fold whose model an earlier call has finished, by this recipe and on these recordings, is not trained again.
    """
    import numpy as np
    import pandas as pd

    import evaluation
    import model
    import scoring

    folds = dataset.folds(table, arguments.folds or None, recipe.split_seed)
    scored, chance = [], 0
    for fold, part in folds.items():
        run = f"{name}-{fold}"
        make_folders(f"figures/{run}")
        path, checkpoint = Path(f"models/{run}.keras"), Path(f"models/{run}.checkpoint.npz")
        known = part != "test"
        test = table[~known].reset_index(drop=True)
        card = runs.read_card(path) if path.exists() and not checkpoint.exists() else None
        if not card or (card.recipe, card.identity) != (recipe, identity(table.assign(split=part))):
            say(f"{fold}: {', '.join(f'{n:,} {kind}' for kind, n in part.value_counts().items())}")
            model.keras.backend.clear_session()
            train(table.assign(split=part), recipe, run, arguments)
        probabilities = evaluation.predict([(model.load(path), recipe)], test)
        scored.append(evaluation.predictions(test, probabilities).assign(fold=fold))
        chance = chance + evaluation.duration_only(table[known], test)

    results = {}
    pooled = pd.concat(scored)
    for fold, rows in [*zip(folds, scored, strict=True), ("pooled", pooled)]:
        true = rows.label.map(CLASSES.index).to_numpy()
        results[fold] = evaluation.measure(true, rows[evaluation.COLUMNS].to_numpy())
    shown = {"4-class": "avg_F1_score", "challenge": "challenge_F1"}
    print(f"{'F1':<8}" + "".join(f"{title:>11}" for title in (*CLASSES, *shown)))
    lines = {
        fold: [*result["F1"].values(), *(result[key] for key in shown.values())] for fold, result in results.items()
    }
    values = np.array([lines[fold] for fold in folds])
    if len(values) > 1:
        lines |= {"mean": values.mean(0), "sd": values.std(0, ddof=1)}
    for title, line in lines.items():
        print(f"{title:<8}" + "".join(f"{value:>11.4f}" for value in line))
    with writing(f"figures/{name}/folds.json") as temporary:
        temporary.write_text(json.dumps({"recipe": asdict(recipe), "folds": results}, indent=2) + "\n")
    with writing(f"figures/{name}/fold_predictions.csv") as temporary:
        pooled.to_csv(temporary, index=False, float_format="%.6f")
    print(
        f"from the duration alone, pooled: 4-class {scoring.average_f1(chance):.4f}, "
        f"challenge {scoring.challenge_f1(chance):.4f}"
    )
    print(f"wrote figures/{name}/folds.json and fold_predictions.csv")


def identity(table):
    """A text that tells the parts of `table` a model learns from, in order, from others."""
    return dataset.digest(table.loc[table.split != "test", ["record", "label", "split", "sampling_rate", "signal"]])


def train(table, recipe, name, arguments):
    """Train `recipe` on the split in `table`, and keep the best model in models/NAME.keras.

    arguments: the flags, for where the recordings are and for Weights & Biases.
    """
    import evaluation
    import model
    import plotting
    import scoring
    import training
    from augmentation import AugmentedImages
    from f1_training_callback import PhysioNetF1Callback

    tracker = tracking.start(arguments.wandb, name, asdict(recipe))
    parts = {part: table[table.split == part] for part in ("train", "validation")}
    labels = {part: rows.label.map(CLASSES.index).to_numpy() for part, rows in parts.items()}
    plain = replace(recipe, vote_stretch=0)  # voting after every epoch would take four times as long
    images = {part: preprocessing.Images(rows.signal, rows.sampling_rate, plain) for part, rows in parts.items()}
    network = model.build(recipe, images["train"][: model.BATCH])
    seen, mine = [*parts["train"].record, *parts["validation"].record], identity(table)
    inputs, targets = images, labels["train"][images["train"].owners]
    if recipe.augments:
        rows = parts["train"]
        inputs = images | {"train": AugmentedImages(rows.signal, rows.sampling_rate, recipe)}
        targets = labels["train"]
    elif not recipe.streams:
        inputs = {
            part: model.frozen_features(network.base, some, f"features, {part} part") for part, some in images.items()
        }
    # A twin is compiled, so that the model is saved without the optimizer, which is several times its size.
    trained = model.keras.Model(network.complete.input, network.complete.output) if recipe.streams else network.head
    path, checkpoint = Path(f"models/{name}.keras"), Path(f"models/{name}.checkpoint.npz")
    scorer = PhysioNetF1Callback(
        inputs["validation"],
        labels["validation"],
        save=lambda: model.save(network.complete, recipe, seen, path, mine),
        chunk_size=2 * model.BATCH if recipe.streams else 256,
        run=tracker,
        owners=images["validation"].owners,
    )
    runs.write_settings(name, arguments.data, asdict(recipe))
    history = training.train(trained, inputs["train"], targets, recipe, scorer, f"models/{name}.csv", checkpoint, mine)
    if recipe.calibrate or recipe.vote_stretch:
        kept = model.load(path)
    if recipe.calibrate:
        rows = parts["validation"]
        voted = preprocessing.Images(rows.signal, rows.sampling_rate, recipe)
        factor, shifts = model.calibrate(kept, voted, labels["validation"])
        model.save(kept, recipe, seen, path, mine)
        shown = ", ".join(f"{name} {shift:+.2f}" for name, shift in zip(CLASSES, shifts, strict=True))
        say(f"calibrated on the validation part: logits times {factor:.2f}, {shown}")
    checkpoint.unlink(missing_ok=True)
    if tracker:
        tracker.finish()
    plotting.training_f1(history, f"figures/{name}/training_f1.png")
    best = history.loc[history.avg_F1_score.idxmax()]
    chance = evaluation.duration_only(parts["train"], parts["validation"])
    print(
        f"best validation F1 in epoch {best.epoch:.0f}: 4-class {best.avg_F1_score:.4f}, "
        f"challenge (N, A, O) {best.challenge_F1:.4f}; from the duration alone: {scoring.average_f1(chance):.4f}, "
        f"{scoring.challenge_f1(chance):.4f}"
    )
    if recipe.calibrate or recipe.vote_stretch:
        probabilities = evaluation.predict([(kept, recipe)], parts["validation"])
        matrix = scoring.confusion_matrix(labels["validation"], probabilities.argmax(1))
        print(
            f"the model that is kept, calibrated on this part and with its whole vote: "
            f"4-class {scoring.average_f1(matrix):.4f}, challenge {scoring.challenge_f1(matrix):.4f}"
        )


if __name__ == "__main__":
    run(main)
