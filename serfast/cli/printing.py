"""Results as the command line prints them."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from serfast.evaluation import Result
    from serfast.metrics import Scores

__all__ = ["print_table", "show_result", "show_scores"]


def show_result(result: "Result") -> None:
    from serfast.reports import fold_table
    from serfast.training import launched

    if launched().rank > 0:
        return  # under torchrun the first process prints
    for note in result.notes:
        typer.echo(f"{result.corpus}: {note}")
    if result.excluded:
        typer.echo(f"excluded: {', '.join(result.excluded)}")
    typer.echo(f"\n{result.corpus}, {result.protocol}: each fold's {result.part} part; epoch selected / epochs run")
    print_table(fold_table(result))
    show_scores(result.pooled, f"all folds pooled, {result.part} part")
    if result.part == "validation":
        typer.echo("These utterances chose the epoch: the scores flatter. Unseen speakers: serfast cross-validate.")
    typer.echo(f"Trained for {result.training_seconds / 60:.1f} min. Saved in {result.output}")


def show_scores(scores: "Scores", title: str) -> None:
    from serfast.reports import confusion_table, score_remarks, score_table

    typer.echo("confusion: truth by row, prediction by column")
    print_table(confusion_table(scores))
    typer.echo(title)
    print_table(score_table(scores))
    typer.echo(score_remarks(scores))


def print_table(table: "Table") -> None:
    from rich.console import Console

    # A table that is wider than the terminal is wrapped by it, never cut: nothing of a result is lost.
    needed = Console(width=10_000).measure(table).maximum
    Console(width=max(Console().width, needed), highlight=False).print(table)
