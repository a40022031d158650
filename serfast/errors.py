"""The one exception of its own that serfast raises: data on disk that breaks a rule."""

__all__ = ["CorpusError"]


class CorpusError(Exception):
    """A recording, corpus, store or run on disk breaks a rule. The message names the file, the rule and the value."""
