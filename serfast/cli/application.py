"""The application that holds all commands: how it fails, how it is stopped, what it says of itself."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from serfast.errors import CorpusError

__all__ = ["app"]

STOPPED = 130
"""Exit code of a command that was interrupted, as shells have it."""

RESUMABLE_COMMANDS = ("demo", "features", "train", "cross-validate", "paper")
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


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # _Commands.invoke reads --debug from the context.
    del debug
