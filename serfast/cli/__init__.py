"""The ``serfast`` command line. Heavy libraries are imported by the commands that need them."""

import sys
from io import TextIOWrapper

from serfast.cli.application import app
from serfast.cli.experiments import cross_validate, demo, evaluate, train
from serfast.cli.extraction import features
from serfast.cli.ladder import paper
from serfast.cli.machine import info
from serfast.cli.recordings import explain, predict

__all__ = ["app", "main"]

for _command in (demo, features, train, cross_validate, evaluate, predict, explain, paper, info):
    app.command()(_command)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, TextIOWrapper):
        # As Python's standard error does: a name that the console's encoding lacks must not stop the work.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
