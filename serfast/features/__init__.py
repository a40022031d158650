"""Low-level descriptors of speech: 13 MFCC, log F0 and their deltas per frame, and the store that holds a corpus's."""

from serfast.features.bulk import ExtractionProgress, default_store_path, extract_corpus, extract_file
from serfast.features.columns import ColumnSource
from serfast.features.extract import extract, feature_names
from serfast.features.frames import frame_times_s
from serfast.features.normaliser import NORMALISATIONS, FrameSource, Normaliser, StandardisedSource, speaker_source
from serfast.features.options import FeatureOptions
from serfast.features.pitch import Pitch, track_pitch
from serfast.features.store import FeatureStore, StoreWriter

__all__ = [
    "NORMALISATIONS",
    "ColumnSource",
    "ExtractionProgress",
    "FeatureOptions",
    "FeatureStore",
    "FrameSource",
    "Normaliser",
    "Pitch",
    "StandardisedSource",
    "StoreWriter",
    "default_store_path",
    "extract",
    "extract_corpus",
    "extract_file",
    "feature_names",
    "frame_times_s",
    "speaker_source",
    "track_pitch",
]
