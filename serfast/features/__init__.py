"""Low-level descriptors of speech: 13 MFCC, log F0 and their deltas per frame, and the store that holds a corpus's."""

from serfast.features.bulk import ExtractionProgress, default_store_path, extract_corpus, extract_file
from serfast.features.columns import ColumnSource
from serfast.features.extract import extract, feature_names
from serfast.features.frames import frame_times_s
from serfast.features.functionals import FUNCTIONALS, functionals
from serfast.features.normaliser import NORMALISATIONS, FrameSource, Normaliser, StandardisedSource, speaker_source
from serfast.features.options import FeatureOptions
from serfast.features.pitch import Pitch, track_pitch
from serfast.features.segments import SegmentSource, loudest_segments
from serfast.features.store import FeatureStore, StoreWriter

__all__ = [
    "FUNCTIONALS",
    "NORMALISATIONS",
    "ColumnSource",
    "ExtractionProgress",
    "FeatureOptions",
    "FeatureStore",
    "FrameSource",
    "Normaliser",
    "Pitch",
    "SegmentSource",
    "StandardisedSource",
    "StoreWriter",
    "default_store_path",
    "extract",
    "extract_corpus",
    "extract_file",
    "feature_names",
    "frame_times_s",
    "functionals",
    "loudest_segments",
    "speaker_source",
    "track_pitch",
]
