"""Commands that ask a trained model about recordings."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serfast.cli.options import DeviceOption, EnrollOption
from serfast.cli.printing import print_table

if TYPE_CHECKING:
    from serfast.recognizer import Recognizer

__all__ = ["explain", "predict"]

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a training run, or of one fold of a cross-validation.")
]


def predict(
    model: ModelArgument,
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Recordings to classify.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON, with logits, attention weights and their times.")
    ] = False,
    enroll: EnrollOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Name the emotion of recordings, with the probability of each class."""
    predictions = _recognizer(model, enroll, device).predict(clips)
    if as_json:
        typer.echo(json.dumps([prediction.to_dict() for prediction in predictions], indent=2))
        return
    from serfast.reports import prediction_table

    print_table(prediction_table(predictions))


def explain(
    model: ModelArgument,
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="Recording to explain.")],
    output: Annotated[Path, typer.Option(help="Folder of CLIP.png, CLIP.svg and CLIP.json.")] = Path("explanations"),
    enroll: EnrollOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Draw a recording's waveform, pitch and attention above each other, beside the probability of each class.

    Attention shows which frames the model listened to. The JSON holds the same numbers, with times in seconds.
    """
    from serfast import atomic, explanation
    from serfast.reports import draw_explanation, prediction_table, save_figure

    numbers = output / f"{clip.stem}.json"
    _refuse_other(numbers, clip)
    found = explanation.explain(_recognizer(model, enroll, device), clip)
    output.mkdir(parents=True, exist_ok=True)
    files = [*save_figure(draw_explanation(found), output / clip.stem), numbers]
    atomic.write_json(numbers, {**found.to_dict(), "path": str(clip.absolute())})
    print_table(prediction_table([found.prediction]))
    if found.prediction.attention_weights is None:
        typer.echo(f"The model pools without attention weights (pooling {found.pooling}): none are drawn.")
    typer.echo(f"Saved {', '.join(map(str, files))}")


def _refuse_other(numbers: Path, clip: Path) -> None:
    # Recordings of one name in several folders would replace each other's explanations.
    from serfast.evaluation.results import read_json

    if not numbers.exists():
        return
    held = read_json(numbers)
    explained = held.get("path") if isinstance(held, dict) else None
    if explained != str(clip.absolute()):
        raise ValueError(
            f"--output must be a folder without {numbers.name} of another recording, got {numbers.parent} with that of "
            f"{explained or 'something else'}: name another folder"
        )


def _recognizer(model: Path, enroll: list[Path] | None, device: str) -> "Recognizer":
    from serfast.recognizer import Recognizer

    recognizer = Recognizer.load(model, device=device)
    by_speaker = recognizer.normaliser is None
    if by_speaker and not enroll:
        raise ValueError("--enroll must name recordings of the speaker, whom this model needs to know, got none")
    if enroll and not by_speaker:
        raise ValueError(
            f"--enroll must not be given for a model that was trained with normalisation 'training', got {enroll[0]}"
        )
    return recognizer.enroll(enroll) if enroll else recognizer
