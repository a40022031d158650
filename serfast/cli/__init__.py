"""The ``serfast`` command line. Heavy libraries are imported by the commands that need them."""

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
    app()
