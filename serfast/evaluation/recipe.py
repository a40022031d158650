"""A recipe: every choice of an experiment with an emotion classifier that is not the corpus and not the protocol."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast

from serfast.checks import integer, require
from serfast.evaluation.ensemble import fit_ensemble, fit_ensembles_side_by_side
from serfast.evaluation.fold import FOLD
from serfast.evaluation.results import read_json
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import FeatureOptions
from serfast.models import EmotionClassifier, ModelOptions
from serfast.recognizer import Recognizer
from serfast.training import (
    TrainedModel,
    TrainingOptions,
    answer,
    base_options,
    train_model,
    train_side_by_side,
)

__all__ = ["RECIPES", "Recipe"]

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "strong": {
        "pooling": "eq9",
        "encoder_dropout": 0.4,
        "pooling_dropout": 0.5,
        "decoder_dropout": 0.4,
        "normalisation": "speaker",
        "n_epochs": 45,
        "selection": "last",
        "schedule": "one_cycle",
        "weight_decay": 1e-2,
        "averaging": 0.99,
        "noise": 0.2,
        "offset": 0.2,
        "n_masked": 40,
        "n_models": 3,
    },
}
"""Named sets of options. "strong" keeps the descriptors and the paper's model and adds what today's practice would."""

SELECTED_ON = {"strong": ("emodb",)}
"""Corpora on which the values of a recipe were chosen: scores on them flatter."""


@dataclass(frozen=True)
class Recipe:
    """How features are extracted, how the model is shaped and how it is trained.

    ``n_models`` are trained on each fold, alike but for their seeds, and the probabilities that they give are averaged.
    ``name`` is the one in :data:`RECIPES` that it began with, whatever was changed since.
    """

    features: FeatureOptions = field(default_factory=FeatureOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    n_models: int = 1
    name: str = "default"

    def __post_init__(self) -> None:
        require("n_models", "be at least 1", self.n_models, integer("n_models", self.n_models) >= 1)
        limit = 2**63 // self.n_models
        require(
            "seed", f"be below {limit} with n_models {self.n_models}", self.training.seed, self.training.seed < limit
        )

    @classmethod
    def from_options(cls, recipe: str = "default", **options: Any) -> "Recipe":
        """The recipe of that name in :data:`RECIPES`, with options changed by name.

        Options are the fields of FeatureOptions, ModelOptions and TrainingOptions, and ``n_models``.

        Raises:
            TypeError: if a name is no option.
            ValueError: if there is no such recipe, or a value is out of range.
        """
        if recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
        options = {**RECIPES[recipe], **options}
        n_models = options.pop("n_models", 1)
        parts: dict[str, Any] = {}
        for part, kind in (("features", FeatureOptions), ("model", ModelOptions), ("training", TrainingOptions)):
            names = {option.name for option in fields(kind)} & options.keys()
            parts[part] = kind(**{name: options.pop(name) for name in names})
        if options:
            known = sorted(["n_models", *(option.name for part in parts.values() for option in fields(part))])
            raise TypeError(f"options must be among {', '.join(known)}, got {', '.join(sorted(options))}")
        return cls(**parts, n_models=n_models, name=recipe)

    @property
    def members(self) -> "tuple[Recipe, ...]":
        """The recipe of each of its models. Recipes with as many models and different seeds have no seed in common."""
        if self.n_models == 1:
            return (self,)
        first = self.n_models * self.training.seed
        seeds = range(first, first + self.n_models)
        return tuple(replace(self, n_models=1, training=replace(self.training, seed=seed)) for seed in seeds)

    @property
    def base(self) -> "Recipe | None":
        """Of a greedy scheme, the recipe of the model whose encoder is frozen; None where each member has its own."""
        base = base_options(self.model, self.training)
        return None if base is None or self.n_models > 1 else Recipe(self.features, *base, name=self.name)

    def remarks(self, corpus: str) -> tuple[str, ...]:
        """What a reader of results on the corpus of that name must know."""
        remarks = []
        if self.n_models > 1:
            remarks.append(f"{self.n_models} models a fold, alike but for seeds: their probabilities are averaged")
        if self.training.normalisation == "speaker":
            remarks.append(
                "transductive: the features of each speaker are standardised with all of that speaker's recordings"
            )
        if corpus in SELECTED_ON.get(self.name, ()):
            remarks.append(f"selected on this corpus: the values of recipe {self.name} were chosen on {corpus}")
        return tuple(remarks)

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Train on the fold and answer its scored part; the recognizer is saved in the fold's folder."""
        if self.n_models > 1:
            return fit_ensemble(self.members, context, batch_size=self.training.batch_size)
        trained = train_model(
            context.store,
            context.fold,
            self.model,
            self.training,
            folder=context.folder,
            device=context.device,
            base=None if self.base is None else _base_model(context),
            on_epoch=context.on_epoch,
        )
        return self._outcome(context, trained)

    @staticmethod
    def fit_side_by_side(members: "Sequence[tuple[Recipe, FoldContext]]") -> list[FoldOutcome]:
        """As :meth:`fit` of recipes that differ in the seed only, each on a fold of one store, in the same steps.

        Raises:
            ValueError: as :func:`serfast.training.train_side_by_side`.
        """
        first, contexts = members[0][0], [context for _, context in members]
        if first.n_models > 1:
            ensembles = [(recipe.members, context) for recipe, context in members]
            return fit_ensembles_side_by_side(ensembles, batch_size=first.training.batch_size)
        trained = train_side_by_side(
            contexts[0].store,
            [context.fold for context in contexts],
            first.model,
            first.training,
            folders=[context.folder for context in contexts],
            device=contexts[0].device,
            on_epochs=[context.on_epoch for context in contexts],
            bases=None if first.base is None else [_base_model(context) for context in contexts],
            names=[context.title for context in contexts],
            seeds=[recipe.training.seed for recipe, _ in members],
        )
        return [recipe._outcome(context, model) for (recipe, context), model in zip(members, trained, strict=True)]

    def _outcome(self, context: FoldContext, trained: TrainedModel) -> FoldOutcome:
        emotions, features = context.store.corpus.emotions, context.store.options
        Recognizer(trained.model, trained.normaliser, emotions, features, context.device).save(context.folder)
        answers = answer(
            trained.model,
            trained.source,
            context.scored,
            batch_size=self.training.batch_size,
            device=context.device,
        )
        selected = trained.history[trained.best_epoch - 1]
        base_seconds = 0.0 if self.base is None else read_json(context.base_folder / FOLD)["seconds"]
        return FoldOutcome(
            answers.probabilities,
            len(trained.history),
            trained.best_epoch,
            trained.seconds + base_seconds,
            validation_ua=selected.validation_ua,
        )

    def to_dict(self) -> dict[str, Any]:
        """Every choice by part and name, JSON-safe."""
        return {
            "recipe": self.name,
            "n_models": self.n_models,
            "features": self.features.to_dict(),
            "model": asdict(self.model),
            "training": asdict(self.training),
        }


def _base_model(context: FoldContext) -> EmotionClassifier:
    return cast("EmotionClassifier", Recognizer.load(context.base_folder, device=str(context.device)).model)
