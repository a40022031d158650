"""Features of a whole corpus, extracted once into a feature store."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serfast import audio
from serfast.corpora import Corpus
from serfast.errors import CorpusError
from serfast.features.extract import extract, feature_names
from serfast.features.options import FeatureOptions
from serfast.features.store import FeatureStore, StoreWriter

__all__ = ["ExtractionProgress", "default_store_path", "extract_corpus", "extract_file"]

COMMIT_EVERY_S = 10.0


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction has come: utterances looked at, of how many, and seconds of audio read so far."""

    n_done: int
    n_utterances: int
    audio_s: float
    elapsed_s: float


def default_store_path(corpus: Corpus, options: FeatureOptions) -> Path:
    """Folder in the user's cache for the features of ``corpus``; ``SERFAST_CACHE`` names another cache.

    Corpora read from one place share a folder whatever emotions were chosen of them.
    """
    cache = Path(os.environ.get("SERFAST_CACHE") or Path.home() / ".cache" / "serfast")
    root = os.path.commonpath([utterance.path.resolve().parent for utterance in corpus.utterances])
    place = hashlib.sha256(f"{root} {options.digest()}".encode()).hexdigest()[:16]
    return cache / "features" / f"{corpus.name}-{place}"


def extract_file(
    path: Path, options: FeatureOptions, *, start_s: float = 0.0, end_s: float | None = None
) -> NDArray[np.float32]:
    """Features (frame, feature) of a recording, or of its segment from ``start_s`` to ``end_s``.

    Raises:
        CorpusError: naming the file, if it cannot be read or its waveform cannot be analysed.
    """
    clip = audio.read(path, sample_rate=options.sample_rate, start_s=start_s, end_s=end_s)
    try:
        return extract(clip.waveform, clip.sample_rate, options)
    except ValueError as error:
        raise CorpusError(f"{path}: {error}") from error


def extract_corpus(
    corpus: Corpus,
    store: str | Path,
    options: FeatureOptions | None = None,
    *,
    on_progress: Callable[[ExtractionProgress], None] | None = None,
) -> FeatureStore:
    """Bring the store in the folder ``store`` up to date with ``corpus`` and open it.

    Utterances whose recording and options are unchanged are not extracted again. An interrupted run goes on where it
    stopped. A recording that breaks a rule does not stop the others: it is listed with the reason in ``broken``.

    Args:
        corpus: utterances whose recordings exist on disk.
        store: folder of the store; made if missing.
        options: how to extract; the defaults of :class:`FeatureOptions` when None.
        on_progress: called after every utterance.

    Raises:
        ValueError: if the folder holds features of other options.
        CorpusError: if not one utterance could be extracted.
    """
    options = options or FeatureOptions()
    writer = StoreWriter(store, options, feature_names(options))
    try:
        _fill(writer, corpus, options, on_progress)
    finally:
        writer.close()
    return FeatureStore.open(store)


def _fill(
    writer: StoreWriter,
    corpus: Corpus,
    options: FeatureOptions,
    on_progress: Callable[[ExtractionProgress], None] | None,
) -> None:
    sources: dict[str, str] = {}
    broken: dict[str, str] = {}
    file_digests: dict[Path, str] = {}
    audio_s, started = 0.0, time.monotonic()
    committed = started
    for n_done, utterance in enumerate(corpus.utterances, start=1):
        try:
            source = _content_digest(utterance.path, file_digests)
            sources[utterance.key] = source
            if not writer.holds(utterance.key, source):
                frames = extract_file(utterance.path, options, start_s=utterance.start_s, end_s=utterance.end_s)
                writer.append(utterance.key, source, frames)
                audio_s += len(frames) * options.hop / options.sample_rate
        except CorpusError as error:
            broken[utterance.key] = str(error)
        if on_progress is not None:
            on_progress(ExtractionProgress(n_done, len(corpus.utterances), audio_s, time.monotonic() - started))
        if time.monotonic() - committed > COMMIT_EVERY_S:
            writer.commit(corpus, sources, broken)
            committed = time.monotonic()
    writer.commit(corpus, sources, broken)
    if len(broken) == len(corpus.utterances):
        key, reason = next(iter(broken.items()))
        raise CorpusError(f"corpus {corpus.name} must hold at least one sound recording, got none; {key}: {reason}")


def _content_digest(path: Path, known: dict[Path, str]) -> str:
    # Digest of a file's bytes; a file that holds several utterances is read once.
    if path not in known:
        try:
            with path.open("rb") as stream:
                digest = hashlib.sha256()
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise CorpusError(f"{path} must be readable, got {error.strerror or error}") from error
        known[path] = digest.hexdigest()
    return known[path]
