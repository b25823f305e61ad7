"""Explore the recordings, then train the final model.

    python main.py                                  the report's run, on data/training2017.zip (downloaded if absent)
    python main.py --weights random --epochs 5      without ImageNet weights: the machinery, not the result
    python main.py --recipe improved                our own recipe, trained twice: 50 minutes on a fast CPU core
    python main.py --recipe improved --labels v3 --folds FILE.csv       a model and a score for each fold
    python main.py --data FOLDER --labels v3 --run mine

An interrupted training continues when you give the same command again; one that is finished is not trained again.

Writes figures/class_distribution.png, sequence_length_distribution.png and example_recordings.png, data/split.csv,
models/RUN.keras (the epoch of the best validation F1; by the recipe improved, of the least loss), models/RUN.csv (one
row per epoch) and figures/RUN/training_f1.png. The recipe improved is trained twice: RUN-first, as above, and then RUN,
from the beginning, on the training and validation splits together. RUN takes the number of epochs, the calibration, the
thresholds and the scores from RUN-first, and its CSV file has the loss alone. With --folds there is no data/split.csv,
the rest is written for each of RUN-fold0, RUN-fold1 …, and their scores are in figures/RUN/folds.json and
fold_predictions.csv. RUN is the recipe's name and what was changed in it.
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
from shell import UserError, make_folders, parser, run_name, run_script, say, writing


def main():
    flags = parser(__doc__)
    flags.add_argument(
        "--data", type=Path, default=dataset.DEFAULT_DATA, metavar="PATH", help="zip or folder of recordings"
    )
    flags.add_argument(
        "--run", type=run_name, metavar="NAME", help="name of the run's files (default: the recipe's, with its changes)"
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
    recipes.add_flags(flags)
    arguments = flags.parse_args()
    recipe = recipes.from_flags(flags, arguments)
    run = choose_run(arguments.run, recipe)
    check(recipe, arguments.folds)
    make_folders("data", "models", run.figures)

    table = dataset.read_recordings(arguments.data, recipe.labels)
    explore(table, recipe)
    if arguments.folds is not None:
        folds = dataset.folds(table, arguments.folds or None, recipe.split_seed)
        return cross_validate(table, folds, recipe, run, arguments.data, arguments.wandb, arguments.folds)
    table["split"] = dataset.split(table, recipe.split_seed, recipe.seed)
    dataset.write_split(table)
    train(table, recipe, run, arguments.data, arguments.wandb)
    print(f"wrote {run.model} and {run.figures}/training_f1.png; next: {runs.command('evaluation.py', run.name)}")


def choose_run(name, recipe):
    """The `Run` called `name` or, without one, as the recipe and what was changed in it."""
    run = runs.Run(name or recipe.run)
    if not name and recipe.changes:
        say(
            f"the recipe {recipe.name} was changed, so the run is called {run.name}; --run NAME would call it otherwise"
        )
    return run


def check(recipe, folds):
    """Refuse files that do not exist, and images too large, before the work begins."""
    try:
        runs.check_images(recipe)
    except ValueError as error:
        raise UserError(f"the recipe cannot be used: {error}; pass a smaller --seconds or --noverlap") from error
    if recipe.weights not in ("imagenet", "random") and not Path(recipe.weights).is_file():
        raise UserError(f"{recipe.weights} does not exist; pass --weights imagenet, random or a weights file")
    if recipe.weights == "random" and recipe.backbone != "compact":
        say(f"note: {recipe.backbone} starts with random weights")
    if folds and not Path(folds).is_file():
        raise UserError(f"--folds {folds} does not exist; name a CSV file of record,fold0,fold1,…")


def explore(table, recipe):
    """Draw Figures 1 and 2, and the first recording of each class that lasts at least 20 s."""
    import plotting

    plotting.class_distribution(table.label, "figures/class_distribution.png")
    seconds = dataset.seconds(table)
    plotting.sequence_length_distribution(seconds, "figures/sequence_length_distribution.png")
    examples = {}
    for label in CLASSES:
        of_class = table[(table.label == label) & (seconds >= 20)]
        if len(of_class):
            record, signal, rate = of_class[["record", "signal", "sampling_rate"]].iloc[0]
            pixels = preprocessing.image(preprocessing.prepare(signal, rate, recipe), recipe)
            examples[label] = record, signal, rate, preprocessing.picture(pixels, recipe)
    plotting.example_recordings(examples, "figures/example_recordings.png")
    say("figures/class_distribution.png, sequence_length_distribution.png and example_recordings.png are drawn")


def train(table, recipe, run, data, mode, fold=None):
    """Train `recipe` on the split in `table`, keep the best model in the run's file, and print its scores.

    data: where the recordings are; mode: of Weights & Biases; fold: as in the `runs.Card`. A training that is finished
    is not done again. Where the recipe has a refit, a run of its own comes first, which the validation split scores and
    calibrates.
    """
    import plotting
    import rhythm
    import training

    first, fingerprint = None, training.fingerprint(table, recipe)
    with run.lock():
        card = run.finished(fingerprint)
        if card:
            say(f"{run.model} is finished, by this recipe and on these recordings; delete it to train it again")
        else:
            if run.model.exists() and not run.checkpoint.exists():
                say(f"note: {run.model}, of another training, will be replaced")
            if recipe.refit:
                first = runs.Run(f"{run.name}-first")
                make_folders(first.figures)
                train(table, replace(recipe, refit=False), first, data, mode, fold)
            card = learn(table, recipe, run, fingerprint, data, mode, first, fold)
        for trained in (run, *rhythm.parts(run)):
            trained.checkpoint.unlink(missing_ok=True)
    plotting.training_f1(card, run.figures / "training_f1.png")
    if not first:  # which has told it
        tell(card, table)
    if recipe.refit:
        print(f"{run.model} has learned from the validation split too; these scores are those of {run.name}-first")


def tell(card, table):
    """Print the scores of a training on the validation split in `table`; card: its final `Card`."""
    import scoring

    recipe = card.recipe
    best = scoring.best_row(card.history, recipe.best_epoch)
    print(
        f"{'best validation F1' if recipe.best_epoch == 'f1' else 'least validation loss'} in epoch {best['epoch']}: "
        f"4-class F1 {best['avg_F1_score']:.4f}, challenge (N, A, O) {best['challenge_F1']:.4f}"
    )
    steps = ["calibrated on this split"] * recipe.calibrate + ["with its whole vote"] * bool(recipe.vote_stretch)
    steps += ["joined by its other members"] * (recipe.members != "network")
    if steps:
        print(
            f"the model that is kept, {', '.join(steps)}: 4-class {card.scores['avg_F1_score']:.4f}, "
            f"challenge {card.scores['challenge_F1']:.4f}"
        )
    rows, validation = (table[table.split == split] for split in ("train", "validation"))
    baseline = duration_baseline(rows, validation)
    print(
        f"from the duration alone: 4-class {scoring.average_f1(baseline):.4f}, "
        f"challenge {scoring.challenge_f1(baseline):.4f}"
    )


def duration_baseline(seen, table):
    """Confusion matrix (4, 4) on `table` of a guess from the duration alone, learned on the recordings `seen`."""
    import scoring

    return scoring.duration_baseline(
        dataset.seconds(seen), dataset.labels(seen), dataset.seconds(table), dataset.labels(table)
    )


def learn(table, recipe, run, fingerprint, data, mode, first=None, fold=None):
    """Train by `recipe`, and finish: the final `Card`, which the run's model then holds.

    first: the `Run` that was trained on the training split alone, where this learns from the validation split too.
    """
    import model
    import training

    if "rhythm" in recipe.members:
        model.check_onnx()
    if first:
        say("training again from the beginning, on the training and validation splits together")
        table = table.assign(split=table.split.replace("validation", "train"))
    say(f"{len(table):,} recordings: " + ", ".join(f"{n:,} {split}" for split, n in table.split.value_counts().items()))
    tracker = tracking.start(
        mode, run.name, asdict(recipe) | {"code": runs.code(), "training_fingerprint": fingerprint}
    )
    listener = tracker and tracking.Listener(tracker)
    learned = table[table.split != "test"]
    prepared = training.prepare(learned, recipe)
    card = runs.Card(recipe, frozenset(learned.record), fingerprint, str(data), fold=fold)
    card = (
        fit_again(prepared, learned, card, run, listener, first)
        if first
        else fit_best(prepared, learned, card, run, listener)
    )
    if tracker:
        facts = {"recordings_fingerprint": dataset.fingerprint(learned), "training_fingerprint": fingerprint}
        tracking.hand_over(tracker, lambda: tracking.log_model(tracker, run.model, run.name, facts, card.scores))
    return card


def fit_best(prepared, table, card, run, tracker):
    """Train, keep the best epoch on the validation split in `table`, and `finish`; return the final `Card`.

    prepared: `training.Prepared`; card: what is known before; tracker: a `tracking.Listener`, or None.
    """
    import model
    import training
    from f1_training_callback import PhysioNetF1Callback

    recipe = card.recipe
    scorer = PhysioNetF1Callback(
        prepared.validation,
        prepared.validation_labels,
        save=lambda: runs.save(prepared.network.complete, card, run.model),
        chunk_size=2 * model.BATCH if recipe.streams else 256,
        tracker=tracker,
        owners=prepared.owners,
        best_epoch=recipe.best_epoch,
    )
    history = training.fit(prepared.trained, prepared.inputs, prepared.labels, recipe, scorer, run, card.fingerprint)
    train, validation = (table[table.split == split] for split in ("train", "validation"))
    return finish(card._replace(history=history.to_dict("records")), run, train, validation)


def fit_again(prepared, table, card, run, tracker, first):
    """Train all members on all of `table`, the network of images up to the best epoch of the run `first`; return the
    final `Card`.

    What the validation split told, it takes from `first`: calibration, history, scores, thresholds. The rest as
    `fit_best` takes it.
    """
    import scoring
    import training

    recipe, known = card.recipe, first.card()
    best = scoring.best_row(known.history, recipe.best_epoch)["epoch"]
    say(f"the network of images is trained up to epoch {best}, the best of {first.name}")
    scorer = training.Kept(lambda: runs.save(prepared.network.complete, card, run.model), tracker)
    given = prepared.trained, prepared.inputs, prepared.labels, recipe, scorer, run, card.fingerprint
    training.fit(*given, epochs=best)
    saved, sequence = with_heartbeats(card, run, table)
    own = {"recipe": recipe, "fingerprint": card.fingerprint, "fold": card.fold, "measured": saved.card.measured}
    card = known._replace(**own)
    runs.finish(run.model, card, saved.trees, light_copy(saved, run), sequence)
    return card


def finish(card, run, train, validation):
    """Train the other members on the `train` split, calibrate and score all on `validation`; return the final `Card`.

    There the thresholds of the screening for fibrillation are chosen, too. The model, its members, its calibration and
    its history appear in one step, after which the training is finished.
    """
    import members
    import scoring
    import training

    recipe = card.recipe
    saved, sequence = with_heartbeats(card, run, train, validation)
    card, labels = saved.card, dataset.labels(validation)
    said = members.answers(saved, validation.signal, validation.sampling_rate)
    if recipe.calibrate:
        together = [{member: each} for member, each in said.items()] + [said] * (len(said) > 1)
        card = card._replace(
            calibration={",".join(some): training.calibrate(members.joined(some, None), labels) for some in together}
        )
        factor, shifts = card.calibration[recipe.members]
        shown = ", ".join(f"{name} {shift:+.2f}" for name, shift in zip(CLASSES, shifts, strict=True))
        say(f"calibrated on the validation split: logits times {factor:.2f}, {shown}")
    probabilities = members.joined(said, card.calibration)
    card = card._replace(
        scores=scoring.epoch_scores(scoring.confusion_matrix(labels, probabilities.argmax(1))),
        thresholds=scoring.thresholds(labels, probabilities.round(6)),
    )
    runs.finish(run.model, card, saved.trees, light_copy(saved, run), sequence)
    return card


def with_heartbeats(card, run, train, validation=None):
    """Train the members that see heartbeats; return the `runs.Saved` model of the run with them, and its networks
    `rhythm` as ONNX, bytes, or None.

    validation: the recordings that each epoch of those networks is scored on, or None.
    """
    recipe, saved, sequence = card.recipe, runs.load(run.model), None
    if recipe.members != "network":
        import measuring
        import trees

        measured, labels = measuring.measure_all(train.signal, train.sampling_rate), dataset.labels(train)
        saved = saved._replace(trees=trees.fit(measured, labels, recipe))
        card = card._replace(measured=trees.provenance())
    if "rhythm" in recipe.members:
        import inference
        import rhythm

        shown = None, None
        if validation is not None:
            shown = measuring.measure_all(validation.signal, validation.sampling_rate), dataset.labels(validation)
        sequence = rhythm.fit(measured, labels, *shown, recipe, run, card.fingerprint)
        saved = saved._replace(rhythm=inference.Onnx(sequence))
    return saved._replace(card=card), sequence


def light_copy(saved, run):
    """The network of `saved`, the model of a run, as ONNX for predict.py without Keras; None where it is large."""
    import model

    if not model.BACKBONES[saved.card.recipe.backbone].small:
        return None
    try:
        return model.to_onnx(saved.network)
    except ImportError as error:  # what Keras's backend needs for it; a training must not be lost for that
        say(f"note: {run.model} gets no ONNX copy of its network ({error})")
        return None


def cross_validate(table, folds, recipe, run, data, mode, file=""):
    """Train and score `recipe` on each of `folds`, print every score, their mean and deviation, and the pooled score.

    folds: DataFrame of train, validation or test, a column per fold, from the `file`, or our own. A fold that an
    earlier call has finished, by this recipe and on these recordings, is not trained again.
    """
    import numpy as np
    import pandas as pd

    import benchmark
    import members
    import scoring
    from keras_setup import keras

    scored, baseline = [], 0
    for fold, split in folds.items():
        one = runs.Run(f"{run.name}-{fold}")
        make_folders(one.figures)
        print(f"{fold}:")
        train(table.assign(split=split), recipe, one, data, mode, [fold, str(file)])
        test = table[split == "test"].reset_index(drop=True)
        voices = members.voices([runs.load(one.model)], test.signal, test.sampling_rate)
        scored.append([scoring.predictions(test, each).assign(fold=fold) for each in voices.values()])
        baseline = baseline + duration_baseline(table[split != "test"], test)
        keras.backend.clear_session()
    pooled = {name: pd.concat(rows) for name, rows in zip(voices, zip(*scored, strict=True), strict=True)}
    together = next(iter(pooled.values()))
    results = benchmark.by_fold(together)
    print(*benchmark.fold_lines(results), sep="\n")
    heard = {name: rows[scoring.COLUMNS].to_numpy() for name, rows in pooled.items()}
    alone = scoring.members_alone(dataset.labels(together), heard)
    for name, row in alone.items():
        *each, _ = benchmark.by_fold(pooled[name]).values()
        row |= {f"mean_{key}": float(np.mean([one[key] for one in each])) for key in ("avg_F1_score", "challenge_F1")}
        print(f"{name} alone, mean: 4-class {row['mean_avg_F1_score']:.4f}, challenge {row['mean_challenge_F1']:.4f}")
    print(*scoring.members_lines(alone), sep="\n")
    print(
        f"from the duration alone, pooled: 4-class {scoring.average_f1(baseline):.4f}, "
        f"challenge {scoring.challenge_f1(baseline):.4f}"
    )
    with writing(run.figures / "folds.json") as temporary:
        temporary.write_text(
            json.dumps({"recipe": asdict(recipe), "folds": results, "members": alone}, indent=2) + "\n"
        )
    with writing(run.figures / "fold_predictions.csv") as temporary:
        together.to_csv(temporary, index=False, float_format="%.6f")
    print(f"wrote {run.figures}/folds.json and fold_predictions.csv")


if __name__ == "__main__":
    run_script(main)
