"""The command that describes the installation."""

import typer

__all__ = ["info"]


def info() -> None:
    """Print versions, what was built, SIMD level, threads and devices: put this into a bug report."""
    from serfast.environment import describe

    for name, value in describe().items():
        typer.echo(f"{name + ':':<16}{value}")
