"""Training of one model: options, batches, the loop, checkpoints and answers of a trained model."""

from serfast.training.inference import Answers, answer
from serfast.training.loop import CHECKPOINT, EpochRecord, TrainedModel, train_model
from serfast.training.options import TrainingOptions

__all__ = ["CHECKPOINT", "Answers", "EpochRecord", "TrainedModel", "TrainingOptions", "answer", "train_model"]
