"""Recordings of published corpora: which files are some, copies, and notes on numbers."""

import errno
import os
from pathlib import Path

import pytest

from serfast.corpora import Utterance
from serfast.corpora.recordings import drop_copies, find_differences, find_recordings, list_recordings
from serfast.errors import CorpusError


def test_every_wav_file_at_any_depth_is_found_in_order(tmp_path, grow):
    root = grow(tmp_path, ["b/2.wav", "b/1.WAV", "a/deep/er/3.wav", "0.wav", "notes.txt", "b/1.mp3"])
    found = [path.relative_to(root).as_posix() for path in list_recordings(root)]
    assert found == ["0.wav", "a/deep/er/3.wav", "b/1.WAV", "b/2.wav"]


def test_hidden_files_and_folders_are_not_recordings(tmp_path, grow):
    root = grow(tmp_path, ["a.wav", "._a.wav", ".cache/b.wav", "__MACOSX/._a.wav"])
    assert list_recordings(root) == [root / "a.wav"]


def test_linked_folders_are_followed(tmp_path, grow):
    grow(tmp_path / "elsewhere", ["1.wav"])
    root = grow(tmp_path / "root", ["2.wav"])
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    assert list_recordings(root) == [root / "2.wav", root / "linked" / "1.wav"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, grow, monkeypatch):
    root = grow(tmp_path, ["a.wav", "closed/b.wav"])
    scan = os.scandir

    def scan_or_refuse(folder):
        # Permissions would not keep out a superuser.
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scan_or_refuse)
    with pytest.raises(CorpusError, match="closed: folder must be readable, got Permission denied"):
        find_recordings(root, corpus="Xyz", example="x.wav")


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="Xyz must hold recordings such as x.wav, got none"):
        find_recordings(tmp_path, corpus="Xyz", example="x.wav")
    with pytest.raises(CorpusError, match="nowhere: Xyz must be a folder, got nothing there"):
        find_recordings(tmp_path / "nowhere", corpus="Xyz", example="x.wav")


def utterances(root: Path, *names: str) -> list[Utterance]:
    return [Utterance(Path(name).name, root / name, "sad", "s") for name in names]


def test_copies_are_left_out_and_counted(tmp_path):
    for name in ("a/1.wav", "b/1.wav", "b/2.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name[-5:].encode())
    kept, notes = drop_copies(utterances(tmp_path, "a/1.wav", "b/1.wav", "b/2.wav"))
    assert [item.path for item in kept] == [tmp_path / "a/1.wav", tmp_path / "b/2.wav"]
    assert notes == [f"left out 1 copies of recordings: {tmp_path / 'b/1.wav'}"]


def test_different_recordings_of_one_name_are_refused(tmp_path, grow):
    root = grow(tmp_path, ["a/1.wav", "b/1.wav"])
    with pytest.raises(CorpusError, match="b/1.wav: recording must be the same as .*a/1.wav, got other content"):
        drop_copies(utterances(root, "a/1.wav", "b/1.wav"))


def test_differences_name_totals_emotions_and_speakers():
    found = [Utterance(f"{n}", Path(f"{n}"), emotion, "a") for n, emotion in enumerate(["sad", "sad", "glad", "odd"])]
    told = find_differences(found, corpus="Xyz", counts={"sad": 2, "glad": 2, "mad": 1}, speakers=["b", "a", "c"])
    assert told == [
        "3 utterances where Xyz documents 5",
        "glad: 1 utterances where Xyz documents 2",
        "mad: 0 utterances where Xyz documents 1",
        "no utterances of speakers b, c",
    ]
    assert find_differences(found, corpus="Xyz", counts={"sad": 2, "glad": 1}, speakers=["a"]) == []
