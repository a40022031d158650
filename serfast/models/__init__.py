"""Networks: encoder, pooling, decoder and the utterance classifier built of them. They know no corpus."""

from serfast.models.autoencoder import DenoisingLayer, StackedAutoencoder
from serfast.models.blstm import BLSTM
from serfast.models.classifier import EmotionClassifier, EmotionHead, ModelOptions
from serfast.models.decoder import Decoder
from serfast.models.elm import ExtremeLearningMachine
from serfast.models.ensemble import EmotionEnsemble
from serfast.models.frame_classifier import FrameClassifier
from serfast.models.linear_svm import LinearSvm
from serfast.models.lstm import LSTM
from serfast.models.pooling import POOLINGS, AttentionPool, LastPool
from serfast.models.posterior_statistics import posterior_statistics
from serfast.models.segment_network import SegmentNetwork
from serfast.models.softmax import softmax

__all__ = [
    "BLSTM",
    "LSTM",
    "POOLINGS",
    "AttentionPool",
    "Decoder",
    "DenoisingLayer",
    "EmotionClassifier",
    "EmotionEnsemble",
    "EmotionHead",
    "ExtremeLearningMachine",
    "FrameClassifier",
    "LastPool",
    "LinearSvm",
    "ModelOptions",
    "SegmentNetwork",
    "StackedAutoencoder",
    "posterior_statistics",
    "softmax",
]
