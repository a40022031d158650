"""Reading recordings: formats, segments, resampling, and every reason to refuse one."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serfast import audio
from serfast.errors import CorpusError

RATE = 16_000


def tone(frequency_hz: float, *, rate: int = RATE, duration_s: float = 1.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def noise(duration_s: float, *, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(duration_s * rate))).astype(np.float32)


def loudest_hz(waveform: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.fft.rfftfreq(len(waveform), 1 / rate)[spectrum.argmax()])


def write(path: Path, waveform: np.ndarray, *, rate: int = RATE, **options) -> Path:
    soundfile.write(path, waveform, rate, **options)
    return path


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.w64"])
def test_lossless_formats_come_back_to_a_quantisation_step(tmp_path, name):
    waveform = tone(440)
    clip = audio.read(write(tmp_path / name, waveform))
    assert (clip.sample_rate, clip.original_sample_rate, clip.n_channels) == (RATE, RATE, 1)
    assert clip.waveform.dtype == np.float32
    np.testing.assert_allclose(clip.waveform, waveform, atol=1 / 32768)


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg"])
def test_lossy_formats_keep_length_and_tone(tmp_path, name):
    clip = audio.read(write(tmp_path / name, tone(440)))
    assert len(clip.waveform) == RATE
    assert loudest_hz(clip.waveform, RATE) == pytest.approx(440, abs=1)


def test_content_decides_not_the_name(tmp_path):
    flac = write(tmp_path / "a.flac", tone(440))
    for name in ("b.wav", "b.raw", "b.au", "b"):
        misnamed = tmp_path / name
        misnamed.write_bytes(flac.read_bytes())
        np.testing.assert_array_equal(audio.read(misnamed).waveform, audio.read(flac).waveform)


def test_channels_are_averaged(tmp_path):
    left, right = tone(440), tone(1000, level=0.25)
    clip = audio.read(write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    assert clip.n_channels == 2
    np.testing.assert_allclose(clip.waveform, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_resampling_keeps_duration_and_tone(tmp_path, rate):
    clip = audio.read(write(tmp_path / "a.wav", tone(1000, rate=rate, duration_s=2.0), rate=rate))
    assert (clip.sample_rate, clip.original_sample_rate, len(clip.waveform)) == (RATE, rate, 2 * RATE)
    np.testing.assert_allclose(
        clip.waveform[RATE // 2 : -RATE // 2], tone(1000, duration_s=2.0)[RATE // 2 : -RATE // 2], atol=1e-3
    )


def test_resampling_removes_what_would_alias(tmp_path):
    clip = audio.read(
        write(tmp_path / "a.wav", tone(11_000, rate=48_000) + tone(500, rate=48_000, level=0.01), rate=48_000)
    )
    assert loudest_hz(clip.waveform, RATE) == pytest.approx(500, abs=1)
    assert np.abs(clip.waveform[1000:-1000]).max() < 0.011


def test_equal_rates_are_not_resampled():
    waveform = tone(440)
    assert audio.resample(waveform, from_rate=RATE, to_rate=RATE) is waveform


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff", "a.mp3"])
def test_a_segment_equals_the_same_part_of_the_whole(tmp_path, name):
    path = write(tmp_path / name, noise(6.0))
    whole = audio.read(path).waveform
    for start_s, end_s in [(0.0, 1.5), (0.25, 0.75), (2.1234, 5.4321), (4.9, 6.0)]:
        part = audio.read(path, start_s=start_s, end_s=end_s).waveform
        expected = whole[round(start_s * RATE) : round(end_s * RATE)]
        np.testing.assert_allclose(part, expected, atol=1e-6)
    np.testing.assert_allclose(audio.read(path, start_s=5.5).waveform, whole[round(5.5 * RATE) :], atol=1e-6)


def test_a_segment_of_a_variable_rate_mp3_starts_clean(tmp_path):
    path = write(
        tmp_path / "a.mp3", noise(12.0, rate=44_100), rate=44_100, bitrate_mode="VARIABLE", compression_level=0.8
    )
    whole = audio.read(path, sample_rate=44_100).waveform
    for start_s in np.arange(1.5, 11.0, 0.37):
        part = audio.read(path, sample_rate=44_100, start_s=start_s, end_s=start_s + 0.05).waveform
        first = round(start_s * 44_100)
        np.testing.assert_allclose(part, whole[first : first + len(part)], atol=1e-6)


def test_a_segment_may_end_a_rounding_error_behind_the_recording(tmp_path):
    path = write(tmp_path / "a.wav", tone(440))
    assert len(audio.read(path, start_s=0.5, end_s=1.009).waveform) == RATE // 2


def test_overshoot_of_full_scale_is_clipped(tmp_path):
    path = write(tmp_path / "a.wav", tone(440, level=1.5), subtype="FLOAT")
    waveform = audio.read(path).waveform
    assert (waveform.min(), waveform.max()) == (-1.0, 1.0)


def test_a_wav_written_to_a_pipe_is_read_to_its_end(tmp_path):
    content = bytearray(write(tmp_path / "a.wav", tone(440)).read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    (tmp_path / "b.wav").write_bytes(content)
    assert len(audio.read(tmp_path / "b.wav").waveform) == RATE


def test_large_file_headers_are_understood(tmp_path):
    path = write(tmp_path / "a.wav", tone(440), format="RF64")
    assert len(audio.read(path).waveform) == RATE
    assert path.read_bytes()[:4] == b"RF64"
    with pytest.raises(
        CorpusError, match=r"must hold the 32000 bytes of audio its header promises, got 1\d+; the file"
    ):
        audio.read(cut(path, 0.5))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"no\.wav: recording must be a readable file, got No such file"):
        audio.read(tmp_path / "no.wav")
    with pytest.raises(CorpusError, match="must be a readable file, got Is a directory"):
        audio.read(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(CorpusError, match=r"a\.wav: recording must hold samples, got an empty file"):
        audio.read(tmp_path / "a.wav")
    with pytest.raises(CorpusError, match=r"b\.wav: recording must hold samples, got none"):
        audio.read(write(tmp_path / "b.wav", np.zeros(0, np.float32)))


@pytest.mark.parametrize("name", ["a.wav", "a.au", "a.raw", "a.gsm", "a.mp3"])
def test_what_is_not_audio_is_refused(tmp_path, name):
    (tmp_path / name).write_text("file,emotion,speaker\n" * 200)
    with pytest.raises(CorpusError, match=rf"{name}: recording must be sound WAV, FLAC, OGG, MP3 or AIFF, got: "):
        audio.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_a_truncated_file_is_refused_by_its_header(tmp_path, name):
    path = cut(write(tmp_path / name, tone(440)), 0.6)
    with pytest.raises(
        CorpusError, match=rf"{name}: recording must hold the 320\d\d bytes of audio its header promises, got 19"
    ):
        audio.read(path)
    with pytest.raises(CorpusError, match="the file is truncated"):
        audio.read(path, start_s=0.1, end_s=0.2)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_a_truncated_compressed_file_is_refused(tmp_path, name, share):
    with pytest.raises(CorpusError, match=f"{name}: recording must "):
        audio.read(cut(write(tmp_path / name, noise(10.0)), share))


def test_an_mp3_of_unknown_length_is_refused(tmp_path):
    content = write(tmp_path / "a.mp3", noise(3.0)).read_bytes()
    second_frame = content.index(content[:2], 2)
    (tmp_path / "b.mp3").write_bytes(content[second_frame:])
    with pytest.raises(
        CorpusError, match=r"b\.mp3: MP3 must state its length in a Xing, Info or VBRI header, got none"
    ):
        audio.read(tmp_path / "b.mp3")


def test_an_mp3_with_a_tag_in_front_is_read(tmp_path):
    content = write(tmp_path / "a.mp3", noise(3.0)).read_bytes()
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 44]) + bytes(300)
    (tmp_path / "b.mp3").write_bytes(tag + content)
    assert len(audio.read(tmp_path / "b.mp3").waveform) == 3 * RATE


def test_non_finite_samples_are_refused(tmp_path):
    waveform = tone(440)
    waveform[[7, 9]] = np.nan, np.inf
    with pytest.raises(CorpusError, match=r"a\.wav: samples must be finite, got 2 of 16000 that are not"):
        audio.read(write(tmp_path / "a.wav", waveform, subtype="FLOAT"))


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_digital_silence_is_refused(tmp_path, value):
    path = write(tmp_path / "a.wav", np.full(RATE, value, np.float32))
    with pytest.raises(CorpusError, match=rf"a\.wav: recording must not be silent, got 16000 samples of {value:g}"):
        audio.read(path)


def test_a_silent_segment_is_named(tmp_path):
    path = write(tmp_path / "a.wav", np.concatenate([tone(440), np.zeros(RATE, np.float32)]))
    assert len(audio.read(path).waveform) == 2 * RATE
    with pytest.raises(CorpusError, match=r"a\.wav from 1\.5 s to 1\.75 s: recording must not be silent"):
        audio.read(path, start_s=1.5, end_s=1.75)


def test_another_scale_is_refused(tmp_path):
    path = write(tmp_path / "a.wav", tone(440, level=32767.0), subtype="FLOAT")
    with pytest.raises(CorpusError, match=r"samples must be scaled to \[-1, 1\], got a peak of 327"):
        audio.read(path)


def test_less_than_a_window_is_refused(tmp_path):
    assert len(audio.read(write(tmp_path / "a.wav", tone(440, duration_s=0.025))).waveform) == 400
    with pytest.raises(CorpusError, match=r"b\.wav: recording must last at least 25 ms, got 24\.9 ms"):
        audio.read(write(tmp_path / "b.wav", tone(440, duration_s=0.025)[:-1]))


@pytest.mark.parametrize(("start_s", "end_s"), [(0.5, 1.02), (1.0, None), (3.0, 4.0)])
def test_a_segment_outside_the_recording_is_refused(tmp_path, start_s, end_s):
    path = write(tmp_path / "a.wav", tone(440))
    span = f"{start_s} s to {f'{end_s} s' if end_s else 'its end'}"
    message = f"a.wav: segment must lie within the recording's 1.000 s, got {span}"
    with pytest.raises(CorpusError, match=re.escape(message)):
        audio.read(path, start_s=start_s, end_s=end_s)


@pytest.mark.parametrize("rate", [4_000, 384_000])
def test_a_sample_rate_out_of_range_is_refused(tmp_path, rate):
    with pytest.raises(CorpusError, match=rf"sample rate must be between 8000 and 192000 Hz, got {rate}"):
        audio.read(write(tmp_path / "a.wav", tone(440, rate=rate), rate=rate))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_rate": 4_000}, "sample_rate must be between 8000 and 192000 Hz, got 4000"),
        ({"start_s": -0.1}, "start_s must be at least 0, got -0.1"),
        ({"start_s": float("nan")}, "start_s must be at least 0, got nan"),
        ({"start_s": 1.0, "end_s": 1.0}, "end_s must be greater than start_s 1.0, got 1.0"),
        ({"end_s": float("inf")}, "end_s must be greater than start_s 0.0, got inf"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        audio.read(tmp_path / "a.wav", **arguments)


def test_resample_refuses_bad_arguments():
    with pytest.raises(ValueError, match="from_rate must be between 8000 and 192000 Hz, got 1"):
        audio.resample(tone(440), from_rate=1, to_rate=RATE)
    with pytest.raises(ValueError, match="to_rate must be between 8000 and 192000 Hz, got 0"):
        audio.resample(tone(440), from_rate=RATE, to_rate=0)
    with pytest.raises(ValueError, match=re.escape("waveform must have shape (sample,), got (2, 8000)")):
        audio.resample(tone(440).reshape(2, -1), from_rate=RATE, to_rate=8_000)


def test_importing_loads_no_decoder():
    unwanted = {"numba", "soundfile", "soxr", "torch"}
    code = f"import sys, serfast.audio, serfast.corpora; assert not {unwanted} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
