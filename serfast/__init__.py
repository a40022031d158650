"""serfast trains, evaluates and explains utterance-level speech-emotion models.

Names are imported when first used: ``import serfast`` itself loads neither torch nor Numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from serfast.errors import CorpusError

if TYPE_CHECKING:
    from serfast import ops
    from serfast.corpora import Corpus, Utterance, load_corpus
    from serfast.evaluation import Recipe, Result, cross_validate, evaluate, train
    from serfast.explanation import Explanation, explain
    from serfast.features import FeatureOptions, FeatureStore, extract_corpus, feature_names
    from serfast.features.extract import extract
    from serfast.models import ModelOptions
    from serfast.recognizer import Prediction, Recognizer
    from serfast.reports import paper
    from serfast.training import TrainingOptions

__version__ = "0.1.0"

_HOMES = {
    "Corpus": "serfast.corpora",
    "Explanation": "serfast.explanation",
    "FeatureOptions": "serfast.features",
    "FeatureStore": "serfast.features",
    "ModelOptions": "serfast.models",
    "Prediction": "serfast.recognizer",
    "Recipe": "serfast.evaluation",
    "Recognizer": "serfast.recognizer",
    "Result": "serfast.evaluation",
    "TrainingOptions": "serfast.training",
    "Utterance": "serfast.corpora",
    "cross_validate": "serfast.evaluation",
    "evaluate": "serfast.evaluation",
    "explain": "serfast.explanation",
    "extract": "serfast.features",
    "extract_corpus": "serfast.features",
    "feature_names": "serfast.features",
    "load_corpus": "serfast.corpora",
    "paper": "serfast.reports",
    "train": "serfast.evaluation",
}

__all__ = [
    "Corpus",
    "CorpusError",
    "Explanation",
    "FeatureOptions",
    "FeatureStore",
    "ModelOptions",
    "Prediction",
    "Recipe",
    "Recognizer",
    "Result",
    "TrainingOptions",
    "Utterance",
    "__version__",
    "cross_validate",
    "evaluate",
    "explain",
    "extract",
    "extract_corpus",
    "feature_names",
    "load_corpus",
    "ops",
    "paper",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name, or a subpackage, on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in (
        "audio",
        "corpora",
        "evaluation",
        "features",
        "metrics",
        "models",
        "ops",
        "reference",
        "reports",
        "training",
    ):
        return import_module(f"serfast.{name}")
    raise AttributeError(f"module 'serfast' has no attribute {name!r}")
