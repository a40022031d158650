"""Experiments: recipes, protocols, the main job, and their results."""

from serfast.evaluation.attention_study import (
    AttentionFrames,
    AttentionStudy,
    annotation_options,
    attention_frames,
    study_attention,
)
from serfast.evaluation.cross_corpus import evaluate
from serfast.evaluation.experiment import cross_validate, train
from serfast.evaluation.ladder_rows import ComparedRow, LadderRow, MeanScores, compare_rows
from serfast.evaluation.recipe import RECIPES, Recipe
from serfast.evaluation.results import FoldResult, Result, UtterancePrediction

__all__ = [
    "RECIPES",
    "AttentionFrames",
    "AttentionStudy",
    "ComparedRow",
    "FoldResult",
    "LadderRow",
    "MeanScores",
    "Recipe",
    "Result",
    "UtterancePrediction",
    "annotation_options",
    "attention_frames",
    "compare_rows",
    "cross_validate",
    "evaluate",
    "study_attention",
    "train",
]
