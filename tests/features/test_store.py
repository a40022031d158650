import os
import pickle
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serfast import FeatureOptions, FeatureStore, extract, extract_corpus, feature_names, load_corpus
from serfast.corpora import Corpus, Utterance
from serfast.errors import CorpusError
from serfast.features import Normaliser, StoreWriter


def write_tone(path: Path, frequency_hz: float, seconds: float = 0.4) -> np.ndarray:
    time_s = np.arange(int(16000 * seconds)) / 16000
    samples = (8000 * np.sin(2 * np.pi * frequency_hz * time_s)).astype("<i2")
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(16000)
        stream.writeframes(samples.tobytes())
    return samples


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    lines = ["file,emotion,speaker"]
    for number in range(4):
        write_tone(tmp_path / f"{number}.wav", 100 + 40 * number, 0.3 + 0.1 * number)
        lines.append(f"{number}.wav,{('sad', 'happy', 'angry')[number % 3]},s{number}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return load_corpus("csv", tmp_path / "manifest.csv")


def test_a_store_gives_back_what_extract_gives(corpus: Corpus, tmp_path: Path):
    store = extract_corpus(corpus, tmp_path / "store")
    for index, utterance in enumerate(corpus.utterances):
        samples = np.frombuffer(utterance.path.read_bytes()[44:], "<i2")
        assert np.array_equal(store.utterance_rows(index), extract(samples, 16000))
    assert store.corpus.utterances == corpus.utterances
    assert store.corpus.emotions == corpus.emotions
    assert store.gather([2, 0]).shape == (store.lengths[2] + store.lengths[0], 28)


def test_what_is_stored_is_not_extracted_again(corpus: Corpus, tmp_path: Path):
    extract_corpus(corpus, tmp_path / "store")
    written = (tmp_path / "store" / "rows.f32").stat().st_mtime_ns, (tmp_path / "store" / "rows.f32").stat().st_size
    seen = []
    extract_corpus(corpus, tmp_path / "store", on_progress=seen.append)
    assert seen[-1].audio_s == 0
    assert (tmp_path / "store" / "rows.f32").stat().st_size == written[1]


def test_a_changed_recording_is_extracted_again(corpus: Corpus, tmp_path: Path):
    before = extract_corpus(corpus, tmp_path / "store").utterance_rows(1).copy()
    write_tone(corpus.utterances[1].path, 333)
    after = extract_corpus(corpus, tmp_path / "store")
    samples = np.frombuffer(corpus.utterances[1].path.read_bytes()[44:], "<i2")
    assert np.array_equal(after.utterance_rows(1), extract(samples, 16000))
    assert before.shape != after.utterance_rows(1).shape or not np.array_equal(before, after.utterance_rows(1))


def test_rows_behind_the_last_commit_are_cut_off_and_extracted_again(corpus: Corpus, tmp_path: Path):
    whole = extract_corpus(corpus, tmp_path / "whole")
    writer = StoreWriter(tmp_path / "store", FeatureOptions(), whole.feature_names)
    writer.append(corpus.utterances[0].key, whole.sources[0], whole.utterance_rows(0))
    writer.commit()
    writer.append(corpus.utterances[1].key, whole.sources[1], np.full((7, 28), np.nan, np.float32))
    writer.close()
    resumed = extract_corpus(corpus, tmp_path / "store")
    assert np.array_equal(resumed.gather(range(4)), whole.gather(range(4)))
    assert len(resumed.rows) == len(whole.rows)


def _make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".lock").unlink(missing_ok=True)
    folder.chmod(0o555)
    access = os.access  # a superuser may write whatever the folder's mode, but not on a read-only file system
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))


def _state(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_read_only_store_serves_the_corpus_and_parts_of_it(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = extract_corpus(corpus, tmp_path / "store")
    _make_read_only(tmp_path / "store", monkeypatch)
    before = _state(tmp_path / "store")
    again = extract_corpus(corpus, tmp_path / "store")
    assert again.corpus == whole.corpus
    assert np.array_equal(again.gather(range(4)), whole.gather(range(4)))
    fewer = load_corpus("csv", tmp_path / "manifest.csv", emotions=["sad", "angry"])
    assert np.array_equal(extract_corpus(fewer, tmp_path / "store").gather([2]), whole.gather([3]))
    assert _state(tmp_path / "store") == before


def test_a_read_only_store_takes_nothing_new(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    extract_corpus(corpus, tmp_path / "store")
    write_tone(corpus.utterances[1].path, 333)
    _make_read_only(tmp_path / "store", monkeypatch)
    with pytest.raises(CorpusError, match=r"must be writable to take the features of 1\.wav, got a read-only folder"):
        extract_corpus(corpus, tmp_path / "store")


def test_a_subset_of_emotions_keeps_the_others_features(corpus: Corpus, tmp_path: Path):
    extract_corpus(corpus, tmp_path / "store")
    fewer = load_corpus("csv", tmp_path / "manifest.csv", emotions=["sad", "angry"])
    assert len(extract_corpus(fewer, tmp_path / "store").lengths) == 3
    seen = []
    assert len(extract_corpus(corpus, tmp_path / "store", on_progress=seen.append).lengths) == 4
    assert seen[-1].audio_s == 0


def test_a_part_of_the_corpus_does_not_hide_the_rest(corpus: Corpus, tmp_path: Path):
    extract_corpus(corpus, tmp_path / "store")
    fewer = load_corpus("csv", tmp_path / "manifest.csv", emotions=["sad", "angry"])
    assert extract_corpus(fewer, tmp_path / "store").corpus.emotions == ("sad", "angry")
    assert FeatureStore.open(tmp_path / "store").corpus.utterances == corpus.utterances


def test_an_unfinished_extraction_is_not_taken_for_a_corpus(corpus: Corpus, tmp_path: Path):
    writer = StoreWriter(tmp_path / "store", FeatureOptions(), feature_names())
    writer.append(corpus.utterances[0].key, "x", np.zeros((9, 28), np.float32))
    writer.commit()
    writer.close()
    with pytest.raises(CorpusError, match="must be a finished feature store, got one whose extraction stopped"):
        FeatureStore.open(tmp_path / "store")


@pytest.mark.parametrize("n_kept", [None, 0, 5000])
def test_lost_rows_are_extracted_again(corpus: Corpus, tmp_path: Path, n_kept: int | None):
    before = extract_corpus(corpus, tmp_path / "store").gather(range(4))
    rows = tmp_path / "store" / "rows.f32"
    rows.unlink() if n_kept is None else os.truncate(rows, n_kept)
    with pytest.raises(CorpusError, match=r"rows.f32 must hold \d+ rows, got \d+"):
        FeatureStore.open(tmp_path / "store")
    assert np.array_equal(extract_corpus(corpus, tmp_path / "store").gather(range(4)), before)


def test_features_of_another_version_are_refused(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    extract_corpus(corpus, tmp_path / "store")
    monkeypatch.setattr("serfast.features.options.FEATURES_VERSION", -1)
    with pytest.raises(CorpusError, match="must hold features of this version of serfast"):
        FeatureStore.open(tmp_path / "store")


def test_other_options_need_another_folder(corpus: Corpus, tmp_path: Path):
    extract_corpus(corpus, tmp_path / "store")
    with pytest.raises(ValueError, match=r"options asked for, got features of .*hop_ms 10\.0.*another folder"):
        extract_corpus(corpus, tmp_path / "store", FeatureOptions(hop_ms=20))


def test_a_broken_recording_is_listed_and_the_rest_done(corpus: Corpus, tmp_path: Path):
    corpus.utterances[2].path.write_bytes(b"RIFF no sound")
    store = extract_corpus(corpus, tmp_path / "store")
    assert list(store.broken) == [corpus.utterances[2].key]
    assert "2.wav" in store.broken[corpus.utterances[2].key]
    assert len(store.corpus.utterances) == 3


def test_a_folder_without_a_store_is_named(tmp_path: Path):
    with pytest.raises(CorpusError, match="must be a feature store, got a folder without index.arrow"):
        FeatureStore.open(tmp_path)
    (tmp_path / "index.arrow").write_bytes(b"nonsense")
    with pytest.raises(CorpusError, match="index.arrow must be the index of a feature store"):
        FeatureStore.open(tmp_path)


def test_rows_that_were_cut_off_are_noticed(tiny_store: FeatureStore):
    store = tiny_store
    with (store.path / "rows.f32").open("r+b") as stream:
        stream.truncate(28 * 4 * 10)
    with pytest.raises(CorpusError, match=r"rows.f32 must hold \d+ rows, got 10"):
        FeatureStore.open(store.path)


def test_a_store_goes_to_another_process_without_its_rows(make_store: Callable[..., FeatureStore], tmp_path: Path):
    sizes = []
    for factor in (1, 20):
        store = make_store(tmp_path / str(factor))
        with (store.path / "rows.f32").open("ab") as stream:
            stream.write(bytes(store.rows.nbytes * (factor - 1)))
        store = FeatureStore.open(store.path)
        assert len(store.rows) >= factor * int(store.lengths.sum())
        sent = pickle.dumps(store)
        sizes.append(len(sent))
        assert np.array_equal(pickle.loads(sent).gather([3, 1]), store.gather([3, 1]))
    assert abs(sizes[1] - sizes[0]) < 100


def test_normaliser_is_fitted_on_the_named_utterances_only(tiny_store: FeatureStore):
    chosen = [0, 5, 7]
    normaliser = Normaliser.fit(tiny_store, chosen)
    normal = normaliser.apply(tiny_store.gather(chosen))
    assert np.allclose(normal.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(normal.std(axis=0), 1, atol=1e-5)


def test_a_constant_feature_becomes_zero(tmp_path: Path):
    utterances = (Utterance("a", Path("a.wav"), "sad", "s0"),)
    frames = np.random.default_rng(0).standard_normal((50, 28)).astype(np.float32)
    frames[:, 3] = -23.02
    writer = StoreWriter(tmp_path / "store", FeatureOptions(), tuple(map(str, range(28))))
    writer.append("a", "x", frames)
    store = writer.finish(Corpus("one", utterances, ("sad",)), {"a": "x"}, {})
    writer.close()
    assert np.abs(Normaliser.fit(store, [0]).apply(store.gather([0]))[:, 3]).max() < 1e-4
