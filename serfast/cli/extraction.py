"""The command that extracts features."""

from pathlib import Path
from typing import Annotated

import typer

from serfast.cli.options import CorpusArgument, FeatureSetOption, RootArgument, load, parse_settings

__all__ = ["features"]


def features(
    corpus: CorpusArgument,
    root: RootArgument,
    store: Annotated[Path, typer.Argument(help="Folder of the feature store; made if missing.")],
    options: FeatureSetOption = None,
    jobs: Annotated[int | None, typer.Option(help="Threads; one for every processor if not given.")] = None,
) -> None:
    """Extract the features of a corpus into a store; what is there and unchanged is not extracted again."""
    from serfast.evaluation.extraction_report import extraction_report
    from serfast.evaluation.progress import Progress
    from serfast.features import FeatureOptions, extract_corpus

    chosen = FeatureOptions.from_dict(parse_settings(options))
    loaded = load(corpus, root, None)
    for note in loaded.notes:
        typer.echo(f"{loaded.name}: {note}", err=True)
    with extraction_report(Progress(True)) as report:
        extracted = extract_corpus(loaded, store, chosen, jobs=jobs, on_progress=report)
    typer.echo(
        f"{store}: {len(extracted.lengths)} utterances, {int(extracted.lengths.sum())} frames of "
        f"{len(extracted.feature_names)} features"
    )
    for key, reason in extracted.broken.items():
        typer.echo(f"broken: {key}: {reason}", err=True)
    if extracted.broken:
        raise typer.Exit(1)
