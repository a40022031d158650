"""Commands that ask a trained model about recordings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from serfast.cli.options import DeviceOption
from serfast.cli.printing import print_table

__all__ = ["predict"]


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

    print_table(prediction_table(predictions))
