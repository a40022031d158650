"""Experiments: recipes, protocols, the main job, and their results."""

from serfast.evaluation.cross_corpus import evaluate
from serfast.evaluation.experiment import cross_validate, train
from serfast.evaluation.recipe import Recipe
from serfast.evaluation.results import FoldResult, Result, UtterancePrediction

__all__ = ["FoldResult", "Recipe", "Result", "UtterancePrediction", "cross_validate", "evaluate", "train"]
