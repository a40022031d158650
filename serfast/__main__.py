"""``python -m serfast`` and the ``serfast`` command."""

from serfast.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
