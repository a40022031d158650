"""The ``serfast`` command line. Heavy libraries are imported by the commands that need them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from serfast.errors import CorpusError

if TYPE_CHECKING:
    from rich.table import Table

    from serfast.corpora import Corpus
    from serfast.evaluation import Result
    from serfast.metrics import Scores

__all__ = ["app", "main"]

STOPPED = 130
"""Exit code of a command that was interrupted, as shells have it."""

RESUMABLE_COMMANDS = ("demo", "features", "train", "cross-validate")
RESUMABLE = "; the same command goes on where this one stopped"


class _Commands(TyperGroup):
    # An error is one line, or a traceback under --debug; Ctrl-C leaves a run that can be resumed.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # --debug may stand before the command or behind it.
        if "--debug" in args:
            args = ["--debug", *(word for word in args if word != "--debug")]
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("stopped" + (RESUMABLE if ctx.invoked_subcommand in RESUMABLE_COMMANDS else ""), err=True)
            raise typer.Exit(STOPPED) from None
        except (typer.Exit, typer.Abort):
            raise
        except (CorpusError, OSError, RuntimeError, TypeError, ValueError) as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, evaluate and explain utterance-level speech-emotion models.\n\n"
    "Begin with [bold]serfast demo[/bold]. For your own recordings write a CSV with the columns file, emotion, speaker "
    "and run [bold]serfast cross-validate csv my.csv[/bold].",
    rich_markup_mode="rich",
)

CorpusArgument = Annotated[
    str, typer.Argument(metavar="CORPUS", help="emodb, synthetic, or csv for your own recordings.")
]
RootArgument = Annotated[Path, typer.Argument(metavar="ROOT", help="The corpus's folder; for csv, the CSV file.")]
EmotionsOption = Annotated[
    str | None,
    typer.Option(help="Emotions to keep, comma-separated. new=a+b merges a and b: 'anger,happy=happiness+excited'."),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Folder of the feature store; in the user's cache if not given.")
]
ExcludeOption = Annotated[list[str] | None, typer.Option(help="Key of an utterance to leave out. Repeatable.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PoolingOption = Annotated[str, typer.Option(help="How frames become one vector: eq9, eq8 (attention), mean or last.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any option of FeatureOptions, ModelOptions or TrainingOptions, such as n_units=64, n_epochs=30, "
        "learning_rate=0.001, pooling_dropout=0.5, seed=1, window_ms=32. A wrong name lists them all. Repeatable.",
    ),
]
FeatureSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any option of FeatureOptions, such as window_ms=32 or log_mel=true. A wrong name lists them all. "
        "Repeatable.",
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option(help="Folder of the run; runs/CORPUS-PROTOCOL-POOLING if not given.")
]


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # _Commands.invoke reads --debug from the context.
    del debug


@app.command()
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
    _show(result)


@app.command()
def features(
    corpus: CorpusArgument,
    root: RootArgument,
    store: Annotated[Path, typer.Argument(help="Folder of the feature store; made if missing.")],
    options: FeatureSetOption = None,
    jobs: Annotated[int | None, typer.Option(help="Threads; one for every processor if not given.")] = None,
) -> None:
    """Extract the features of a corpus into a store; what is there and unchanged is not extracted again."""
    from serfast.evaluation.progress import Progress
    from serfast.features import FeatureOptions, extract_corpus

    chosen = FeatureOptions.from_dict(_parse_settings(options))
    loaded = _load(corpus, root, None)
    for note in loaded.notes:
        typer.echo(f"{loaded.name}: {note}", err=True)
    extracted = extract_corpus(loaded, store, chosen, jobs=jobs, on_progress=Progress(True).extraction)
    typer.echo(
        f"{store}: {len(extracted.lengths)} utterances, {int(extracted.lengths.sum())} frames of "
        f"{len(extracted.feature_names)} features"
    )
    for key, reason in extracted.broken.items():
        typer.echo(f"broken: {key}: {reason}", err=True)
    if extracted.broken:
        raise typer.Exit(1)


@app.command()
def train(
    corpus: CorpusArgument,
    root: RootArgument,
    output: OutputOption = None,
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

    loaded = _load(corpus, root, emotions)
    result = evaluation.train(
        loaded,
        output=output or Path("runs") / f"{corpus}-single-{pooling}",
        store=store,
        exclude=exclude or (),
        device=device,
        **_recipe_options(pooling, options),
    )
    _show(result)


@app.command("cross-validate")
def cross_validate(
    corpus: CorpusArgument,
    root: RootArgument,
    protocol: Annotated[
        str,
        typer.Option(
            help="leave_one_speaker_out, paper (one session out, its speakers test and validate in turn), "
            "leave_one_session_out, or fixed (the manifest's split column)."
        ),
    ] = "leave_one_speaker_out",
    output: OutputOption = None,
    pooling: PoolingOption = "eq9",
    emotions: EmotionsOption = None,
    store: StoreOption = None,
    exclude: ExcludeOption = None,
    options: SetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train and test one model per fold; no speaker is in two parts of a fold.

    A stopped run goes on when the same command is run again.
    """
    from serfast import evaluation

    loaded = _load(corpus, root, emotions)
    result = evaluation.cross_validate(
        loaded,
        protocol=protocol,
        output=output or Path("runs") / f"{corpus}-{protocol}-{pooling}",
        store=store,
        exclude=exclude or (),
        device=device,
        **_recipe_options(pooling, options),
    )
    _show(result)


@app.command()
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
        _show(evaluation.Result.load(run))
        return
    if root is None:
        raise ValueError("root must be given with a corpus, got none")
    loaded = _load(corpus, root, emotions)
    _show_scores(
        evaluation.evaluate(run, loaded, store=store, exclude=exclude or (), device=device), f"{run} on {loaded.name}"
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a training run, or of one fold of a cross-validation.")],
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Recordings to classify.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON, with logits, attention weights and their times.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Name the emotion of recordings, with the probability of each class."""
    from serfast.recognizer import Recognizer

    predictions = Recognizer.load(run, device=device).predict(clips)
    if as_json:
        typer.echo(json.dumps([prediction.to_dict() for prediction in predictions], indent=2))
        return
    from serfast.reports import prediction_table

    _print_table(prediction_table(predictions))


@app.command()
def info() -> None:
    """Print versions, what was built, SIMD level, threads and devices: put this into a bug report."""
    from serfast.environment import describe

    for name, value in describe().items():
        typer.echo(f"{name + ':':<16}{value}")


def main() -> None:
    """Run the command line."""
    app()


def _load(corpus: str, root: Path, emotions: str | None) -> "Corpus":
    from serfast.corpora import load_corpus

    return load_corpus(corpus, root, emotions=None if emotions is None else _parse_emotions(emotions))


def _parse_emotions(text: str) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for part in text.split(","):
        name, _, merged = (word.strip() for word in part.partition("="))
        if name in chosen:
            raise ValueError(f"--emotions must name each emotion once, got {name} twice")
        chosen[name] = [word.strip() for word in merged.split("+")] if merged else [name]
    return chosen


def _parse_settings(settings: list[str] | None) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must have the form NAME=VALUE, got {setting!r}")
        try:
            parsed[name.strip()] = json.loads(text)
        except json.JSONDecodeError:
            parsed[name.strip()] = {"True": True, "False": False, "None": None}.get(text, text)
    return parsed


def _recipe_options(pooling: str, settings: list[str] | None) -> dict[str, Any]:
    from serfast.evaluation import Recipe

    options = _parse_settings(settings)
    if "pooling" in options:
        raise ValueError("--set must not name pooling, which has an option of its own: --pooling")
    options["pooling"] = pooling
    Recipe.from_options(**options)  # a wrong name or value is said before anything else happens
    return options


def _show(result: "Result") -> None:
    from serfast.reports import fold_table

    for note in result.notes:
        typer.echo(f"{result.corpus}: {note}")
    if result.excluded:
        typer.echo(f"excluded: {', '.join(result.excluded)}")
    typer.echo(f"\n{result.corpus}, {result.protocol}: each fold's {result.part} part; epoch selected / epochs run")
    _print_table(fold_table(result))
    _show_scores(result.pooled, f"all folds pooled, {result.part} part")
    if result.part == "validation":
        typer.echo("These utterances chose the epoch: the scores flatter. Unseen speakers: serfast cross-validate.")
    typer.echo(f"Trained for {result.training_seconds / 60:.1f} min. Saved in {result.output}")


def _show_scores(scores: "Scores", title: str) -> None:
    from serfast.reports import confusion_table, score_remarks, score_table

    typer.echo("confusion: truth by row, prediction by column")
    _print_table(confusion_table(scores))
    typer.echo(title)
    _print_table(score_table(scores))
    typer.echo(score_remarks(scores))


def _print_table(table: "Table") -> None:
    from rich.console import Console

    # A table that is wider than the terminal is wrapped by it, never cut: nothing of a result is lost.
    needed = Console(width=10_000).measure(table).maximum
    Console(width=max(Console().width, needed), highlight=False).print(table)


DEMO_RECIPE: dict[str, Any] = {"n_epochs": 12, "patience": 4}
"""The default model, with fewer epochs for a smaller corpus."""
