"""The command that runs the paper's systems."""

from pathlib import Path
from typing import Annotated

import typer

from serfast.cli.options import (
    CorpusArgument,
    DeviceOption,
    EmotionsOption,
    ExcludeOption,
    JobsOption,
    RootArgument,
    StoreOption,
    load,
    parse_settings,
)
from serfast.cli.printing import print_table

__all__ = ["paper"]


def paper(
    corpus: CorpusArgument,
    root: RootArgument,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the runs, table and figures; runs/paper-CORPUS if not given.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="As in cross-validate.")] = "paper",
    rows: Annotated[
        str | None,
        typer.Option(help="Rows to run, comma-separated, such as attention_eq9,final_eq9. A wrong one lists them all."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of every row, which the table averages.")] = 1,
    emotions: EmotionsOption = None,
    store: StoreOption = None,
    exclude: ExcludeOption = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Sizes and epochs, such as n_epochs=10 or n_units=64. Repeatable."
        ),
    ] = None,
    utterance: Annotated[
        list[str] | None,
        typer.Option(help="Key of an utterance to draw figure 3 for; one of each emotion if not given. Repeatable."),
    ] = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run every system that the paper compares or builds on, and write its table and figures.

    A finished fold of a row is never trained again: a stopped run goes on when the same command is run again.
    """
    from serfast.evaluation.ladder import LadderOptions
    from serfast.reports import paper as run_paper
    from serfast.reports import paper_table, paper_table_remarks

    settings = parse_settings(options)
    LadderOptions.from_options(**settings)  # a wrong name is said before anything else happens
    output = output or Path("runs") / f"paper-{corpus}"
    found = run_paper(
        load(corpus, root, emotions),
        output=output,
        protocol=protocol,
        rows=None if rows is None else [name.strip() for name in rows.split(",")],
        seeds=seeds,
        store=store,
        exclude=exclude or (),
        jobs=jobs,
        utterances=utterance or None,
        device=device,
        **settings,
    )
    print_table(paper_table(found))
    for remark in paper_table_remarks(found):
        typer.echo(remark)
    typer.echo(f"Table and figures are in {output}")
