import dataclasses
from pathlib import Path

import pytest

import serfast
from serfast.corpora import Corpus

QUICK = {"rows": ["attention_eq9"], "n_units": 4, "n_epochs": 1, "progress": False}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Every speaker has a folder, and recordings of the same names as the others."""
    made = serfast.corpora.synthetic.generate(tmp_path / "corpus", n_speakers=4, n_utterances=4)
    keys = [f"{item.speaker}/{place % 4}.wav" for place, item in enumerate(made.utterances)]
    renamed = [dataclasses.replace(item, key=key) for item, key in zip(made.utterances, keys, strict=True)]
    return dataclasses.replace(made, utterances=tuple(renamed))


def test_recordings_of_one_name_in_two_folders_are_drawn_apart(corpus: Corpus, tmp_path: Path):
    chosen = [item.key for item in corpus.utterances if item.key.endswith("/1.wav")]
    serfast.paper(corpus, output=tmp_path / "paper", store=tmp_path / "stores", utterances=chosen, **QUICK)
    drawn = {path.name for path in (tmp_path / "paper" / "attention" / "attention_eq9").glob("figure-3-*.png")}
    assert drawn == {f"figure-3-{item.speaker}%2F1.png" for item in corpus.utterances}


def test_an_utterance_that_cannot_be_drawn_is_said_before_anything_runs(corpus: Corpus, tmp_path: Path):
    key = corpus.utterances[0].key
    for wrong, exclude in (("nobody.wav", ()), (key, (key,))):
        with pytest.raises(ValueError, match=f"utterances must hold keys of .* not excluded, got {wrong}"):
            serfast.paper(corpus, output=tmp_path / "paper", utterances=[wrong], exclude=exclude, **QUICK)
    with pytest.raises(TypeError, match="utterances must be a list of keys, got the single string"):
        serfast.paper(corpus, output=tmp_path / "paper", utterances=key, **QUICK)
    with pytest.raises(TypeError, match=r"options must be among n_decoder_final, n_epochs, .*, got n_layers"):
        serfast.paper(corpus, output=tmp_path / "paper", n_layers=2, **QUICK)
    assert not (tmp_path / "paper").exists()
