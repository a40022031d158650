"""Arguments and options that several commands share, and what their words mean."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from serfast.corpora import Corpus

__all__ = [
    "CorpusArgument",
    "DeviceOption",
    "EmotionsOption",
    "EnrollOption",
    "ExcludeOption",
    "FeatureSetOption",
    "JobsOption",
    "OutputOption",
    "PoolingOption",
    "RecipeOption",
    "RootArgument",
    "SetOption",
    "StoreOption",
    "load",
    "parse_settings",
    "recipe_options",
    "run_folder",
]

CorpusArgument = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS",
        help="crema-d, emodb, iemocap, iemocap-improvised, ravdess, ravdess-song, savee, synthetic, tess; for your own "
        "recordings csv, or audformat.",
    ),
]
RootArgument = Annotated[Path, typer.Argument(metavar="ROOT", help="The corpus's folder; for csv, the CSV file.")]
EmotionsOption = Annotated[
    str | None,
    typer.Option(
        help="Emotions to keep, comma-separated. new=a+b merges a and b: 'angry,happy=happy+excited,sad,neutral' makes "
        "5531 utterances of IEMOCAP. If not given: all; of IEMOCAP angry, happy, sad and neutral."
    ),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Folder of the feature store; in the user's cache if not given.")
]
ExcludeOption = Annotated[list[str] | None, typer.Option(help="Key of an utterance to leave out. Repeatable.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
EnrollOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="CLIP",
        help="Recording of the speaker, without label, for a model that was trained with normalisation speaker. The "
        "more, the better. Repeatable.",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        help="Folds at a time, each in a process of its own; the processes share the cores. If not given, one after "
        "another, or on a GPU all in the same steps."
    ),
]
PoolingOption = Annotated[str, typer.Option(help="How frames become one vector: eq9, eq8 (attention), mean or last.")]
RecipeOption = Annotated[
    str, typer.Option(help="Options to begin with: default, or strong (today's practice; slower). --set changes them.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any option of FeatureOptions, ModelOptions or TrainingOptions, such as n_units=64, n_epochs=30, "
        "learning_rate=0.001, pooling_dropout=0.5, seed=1, window_ms=32; or n_models=3, to average the probabilities "
        "of three models with different seeds. Of a list, such as n_units=[64,128], the "
        "validation part of each fold chooses. A wrong name lists them all. Repeatable.",
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
    Path | None,
    typer.Option(
        help="Folder of the run; if not given, one in runs/ named after corpus, protocol, pooling and recipe."
    ),
]


def load(corpus: str, root: Path, emotions: str | None) -> "Corpus":
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


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
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


def recipe_options(recipe: str, pooling: str, settings: list[str] | None) -> dict[str, Any]:
    from serfast.evaluation.recipe_choice import recipe_of

    options = parse_settings(settings)
    for name in ("pooling", "recipe"):
        if name in options:
            raise ValueError(f"--set must not name {name}, which has an option of its own: --{name}")
    options.update(recipe=recipe, pooling=pooling)
    recipe_of(**options)  # a wrong name or value is said before anything else happens
    return options


def run_folder(corpus: str, protocol: str, pooling: str, recipe: str) -> Path:
    name = f"{corpus}-{protocol}-{pooling}"
    return Path("runs") / (name if recipe == "default" else f"{name}-{recipe}")
