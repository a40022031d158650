"""A recipe: every choice of an experiment with an emotion classifier that is not the corpus and not the protocol."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import FeatureOptions
from serfast.models import ModelOptions
from serfast.recognizer import Recognizer
from serfast.training import TrainingOptions, answer, base_options, train_model

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How features are extracted, how the model is shaped and how it is trained."""

    features: FeatureOptions = field(default_factory=FeatureOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    @classmethod
    def from_options(cls, **options: Any) -> "Recipe":
        """A recipe from options by name, each a field of FeatureOptions, ModelOptions or TrainingOptions.

        Raises:
            TypeError: if a name is no option.
            ValueError: if a value is out of range.
        """
        parts: dict[str, Any] = {}
        for part, kind in (("features", FeatureOptions), ("model", ModelOptions), ("training", TrainingOptions)):
            names = {option.name for option in fields(kind)} & options.keys()
            parts[part] = kind(**{name: options.pop(name) for name in names})
        if options:
            known = sorted(option.name for part in parts.values() for option in fields(part))
            raise TypeError(f"options must be among {', '.join(known)}, got {', '.join(sorted(options))}")
        return cls(**parts)

    @property
    def base(self) -> "Recipe | None":
        """Of a greedy scheme, the recipe of the model whose encoder is frozen."""
        base = base_options(self.model, self.training)
        return None if base is None else Recipe(self.features, *base)

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Train on the fold and answer its scored part; the recognizer is saved in the fold's folder."""
        base = None if self.base is None else Recognizer.load(context.base_folder, device=str(context.device)).model
        trained = train_model(
            context.store,
            context.fold,
            self.model,
            self.training,
            folder=context.folder,
            device=context.device,
            base=base,
            on_epoch=context.on_epoch,
        )
        emotions, features = context.store.corpus.emotions, context.store.options
        Recognizer(trained.model, trained.normaliser, emotions, features, context.device).save(context.folder)
        answers = answer(
            trained.model,
            trained.source,
            context.scored,
            batch_size=self.training.batch_size,
            device=context.device,
        )
        return FoldOutcome(answers.probabilities, len(trained.history), trained.best_epoch, trained.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Every choice by part and name, JSON-safe."""
        return {
            "features": self.features.to_dict(),
            "model": asdict(self.model),
            "training": asdict(self.training),
        }
