"""Commands that train models and score them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from serfast.cli.options import (
    CorpusArgument,
    DeviceOption,
    EmotionsOption,
    ExcludeOption,
    JobsOption,
    OutputOption,
    PoolingOption,
    RecipeOption,
    RootArgument,
    SetOption,
    StoreOption,
    load,
    recipe_options,
    run_folder,
)
from serfast.cli.printing import show_result, show_scores

__all__ = ["cross_validate", "demo", "evaluate", "train"]

DEMO_RECIPE: dict[str, Any] = {"n_epochs": 12, "patience": 4}
"""The default model, with fewer epochs for a smaller corpus."""


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the run and of the synthetic recordings.")] = Path(
        "serfast-demo"
    ),
    seed: Annotated[int, typer.Option(help="Fixes the recordings, the initial weights and the order of training.")] = 0,
) -> None:
    """Show the main job in minutes: make a small synthetic emotional corpus, cross-validate on it, report.

    Four emotions, voiced by synthetic speakers. Each speaker is tested by a model that never heard that speaker.
    """
    from serfast.corpora import load_corpus, synthetic
    from serfast.evaluation import cross_validate

    typer.echo("Making the synthetic corpus ...", err=True)
    output = output / f"seed-{seed}"
    synthetic.generate(output / "corpus", seed=seed)
    corpus = load_corpus("synthetic", output / "corpus")
    result = cross_validate(corpus, output=output / "run", store=output / "features", seed=seed, **DEMO_RECIPE)
    show_result(result)


def train(
    corpus: CorpusArgument,
    root: RootArgument,
    output: OutputOption = None,
    recipe: RecipeOption = "default",
    pooling: PoolingOption = "eq9",
    emotions: EmotionsOption = None,
    store: StoreOption = None,
    exclude: ExcludeOption = None,
    options: SetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train one model to use; every fifth speaker validates it.

    Its scores are those of the validation speakers, which also chose the epoch: they flatter. Use cross-validate for
    scores of unseen speakers. A stopped run goes on when the same command is run again.
    """
    from serfast import evaluation

    loaded = load(corpus, root, emotions)
    result = evaluation.train(
        loaded,
        output=output or run_folder(corpus, "single", pooling, recipe),
        store=store,
        exclude=exclude or (),
        device=device,
        **recipe_options(recipe, pooling, options),
    )
    show_result(result)


def cross_validate(
    corpus: CorpusArgument,
    root: RootArgument,
    protocol: Annotated[
        str,
        typer.Option(
            help="leave_one_speaker_out, paper (one session out, its speakers test and validate in turn), "
            "leave_one_session_out, speaker_5_fold, speaker_6_fold or speaker_10_fold (groups of speakers), or fixed "
            "(the manifest's split column)."
        ),
    ] = "leave_one_speaker_out",
    output: OutputOption = None,
    recipe: RecipeOption = "default",
    pooling: PoolingOption = "eq9",
    emotions: EmotionsOption = None,
    store: StoreOption = None,
    exclude: ExcludeOption = None,
    options: SetOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = None,
) -> None:
    """Train and test one model per fold; no speaker is in two parts of a fold.

    A stopped run goes on when the same command is run again.
    """
    from serfast import evaluation

    loaded = load(corpus, root, emotions)
    result = evaluation.cross_validate(
        loaded,
        protocol=protocol,
        output=output or run_folder(corpus, protocol, pooling, recipe),
        store=store,
        exclude=exclude or (),
        device=device,
        jobs=jobs,
        **recipe_options(recipe, pooling, options),
    )
    show_result(result)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run; with a corpus, of a training run or of one fold.")],
    corpus: Annotated[
        str | None, typer.Argument(metavar="[CORPUS]", help="A corpus that the model has not seen.")
    ] = None,
    root: Annotated[
        Path | None, typer.Argument(metavar="[ROOT]", help="The corpus's folder; for csv, the CSV file.")
    ] = None,
    emotions: EmotionsOption = None,
    store: StoreOption = None,
    exclude: ExcludeOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Show the scores of a finished run, or score a trained model on another corpus."""
    from serfast import evaluation

    if corpus is None:
        show_result(evaluation.Result.load(run))
        return
    if root is None:
        raise ValueError("root must be given with a corpus, got none")
    loaded = load(corpus, root, emotions)
    show_scores(
        evaluation.evaluate(run, loaded, store=store, exclude=exclude or (), device=device), f"{run} on {loaded.name}"
    )
