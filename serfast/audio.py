"""Reading recordings: any common format becomes mono float32 at one sample rate, or is refused with a reason."""

import io
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.errors import CorpusError

if TYPE_CHECKING:
    import soundfile

__all__ = ["Audio", "read", "resample"]

_MIN_DURATION_S = 0.025  # one analysis window
_MIN_RATE_HZ, _MAX_RATE_HZ = 8_000, 192_000
_END_SLACK_S = 0.010  # annotated ends are rounded: a segment may end this much behind the recording
_MAX_PEAK = 2.0  # lossy decoders and float masters overshoot full scale a little; more is another scale
_MP3_LEAD_S = 0.25  # an MP3 frame borrows bits from frames before it: decode those too, and drop them
_MAX_OGG_PAGE = 65_307  # bytes
_INT16_SCALE = np.float32(1 / 32768)
_WAVE_PCM = 1
_UNKNOWN_BYTES = 0x7FFFF000  # from here up, a 32-bit chunk length was written to a pipe and means "until the end"


class _Pcm(NamedTuple):
    begin: int  # of the samples in the file
    n_bytes: int
    sample_rate: int
    n_channels: int


@dataclass(frozen=True, eq=False)
class Audio:
    """One recording, or a segment of it.

    Attributes:
        waveform: mono samples in [-1, 1], shape (sample,), float32.
        sample_rate: samples per second of ``waveform``.
        original_sample_rate: samples per second on disk.
        n_channels: channels on disk, averaged in ``waveform``.
    """

    waveform: NDArray[np.float32]
    sample_rate: int
    original_sample_rate: int
    n_channels: int


def read(
    path: str | Path,
    *,
    sample_rate: int = 16_000,
    start_s: float = 0.0,
    end_s: float | None = None,
    content: bytes | None = None,
) -> Audio:
    """Read a recording (WAV, FLAC, OGG, MP3, AIFF: the content decides, not the name) as mono at ``sample_rate``.

    Args:
        path: the file.
        sample_rate: samples per second of the result, 8000 to 192000.
        start_s: where the segment starts; found by seeking, what lies before is not decoded.
        end_s: where the segment ends; None for the end of the recording. Up to 10 ms behind it is cut there.
        content: the file's bytes, if they have been read; the file may then be left closed.

    Raises:
        ValueError: if ``sample_rate``, ``start_s`` or ``end_s`` makes no sense for any file.
        CorpusError: if the file is missing, not decodable, empty or truncated; if the segment lies outside it; if its
            sample rate is outside 8 to 192 kHz; if what was read is shorter than 25 ms, not finite, silent or not
            scaled to [-1, 1].
    """
    _check_rate("sample_rate", sample_rate)
    if not (math.isfinite(start_s) and start_s >= 0):
        raise ValueError(f"start_s must be at least 0, got {start_s}")
    if end_s is not None and not (math.isfinite(end_s) and end_s > start_s):
        raise ValueError(f"end_s must be greater than start_s {start_s}, got {end_s}")
    path = Path(path)
    samples, original_rate = _decode(path, content, start_s, end_s)
    waveform = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    place = f"{path}" if start_s == 0 and end_s is None else f"{path} from {_span(start_s, end_s)}"
    peak = _check_waveform(place, waveform, original_rate)
    if peak > 1 or original_rate != sample_rate:
        waveform = np.clip(resample(waveform, from_rate=original_rate, to_rate=sample_rate), -1.0, 1.0)
    return Audio(waveform, sample_rate, original_rate, samples.shape[1])


def resample(waveform: NDArray[np.float32], *, from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample a waveform, shape (sample,), with soxr's high-quality filter; equal rates return it unchanged.

    Raises:
        ValueError: if a rate is outside 8000 to 192000, or the waveform is not one-dimensional.
    """
    _check_rate("from_rate", from_rate)
    _check_rate("to_rate", to_rate)
    if waveform.ndim != 1:
        raise ValueError(f"waveform must have shape (sample,), got {waveform.shape}")
    if from_rate == to_rate:
        return waveform
    import soxr

    resampled: NDArray[np.float32] = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    return resampled


def _span(start_s: float, end_s: float | None) -> str:
    return f"{start_s} s to {'its end' if end_s is None else f'{end_s} s'}"


def _check_rate(name: str, rate: int) -> None:
    if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
        raise ValueError(f"{name} must be between {_MIN_RATE_HZ} and {_MAX_RATE_HZ} Hz, got {rate}")


def _check_waveform(place: str, waveform: NDArray[np.float32], rate: int) -> float:
    """Refuse what cannot be analysed; returns the largest magnitude."""
    duration_s = len(waveform) / rate
    if duration_s < _MIN_DURATION_S:
        raise CorpusError(
            f"{place}: recording must last at least {_MIN_DURATION_S * 1000:.0f} ms, got {duration_s * 1000:.1f} ms"
        )
    low, high = float(waveform.min()), float(waveform.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        n_bad = len(waveform) - int(np.isfinite(waveform).sum())
        raise CorpusError(f"{place}: samples must be finite, got {n_bad} of {len(waveform)} that are not")
    if low == high:
        raise CorpusError(f"{place}: recording must not be silent, got {len(waveform)} samples of {low:g}")
    if max(-low, high) > _MAX_PEAK:
        raise CorpusError(f"{place}: samples must be scaled to [-1, 1], got a peak of {max(-low, high):g}")
    return max(-low, high)


def _decode(path: Path, content: bytes | None, start_s: float, end_s: float | None) -> tuple[NDArray[np.float32], int]:
    """Samples of a segment, shape (sample, channel), and their rate."""
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as stream:
            pcm = _check_container(path, stream, path.stat().st_size if content is None else len(content))
            if pcm is not None:
                return _read_pcm(path, stream, pcm, start_s, end_s), pcm.sample_rate
        return _decode_with_library(path, start_s, end_s)
    except OSError as error:
        raise CorpusError(f"{path}: recording must be a readable file, got {error.strerror}") from error


def _decode_with_library(path: Path, start_s: float, end_s: float | None) -> tuple[NDArray[np.float32], int]:
    import soundfile

    try:
        # A descriptor instead of a name: libsndfile then cannot guess a headerless format from the suffix.
        with path.open("rb") as stream, soundfile.SoundFile(stream.fileno(), closefd=False) as sound:
            return _decode_segment(path, sound, start_s, end_s), sound.samplerate
    except soundfile.LibsndfileError as error:
        raise CorpusError(
            f"{path}: recording must be sound WAV, FLAC, OGG, MP3 or AIFF, got: {error.error_string}"
        ) from error


def _decode_segment(
    path: Path, sound: "soundfile.SoundFile", start_s: float, end_s: float | None
) -> NDArray[np.float32]:
    if sound.format == "MP3":
        _check_mp3_states_length(path)
    first, last = _segment(path, sound.samplerate, sound.frames, start_s, end_s)
    lead = min(first, round(_MP3_LEAD_S * sound.samplerate)) if sound.format == "MP3" else 0
    if first:
        sound.seek(first - lead)
    samples: NDArray[np.float32] = sound.read(last - first + lead, dtype="float32", always_2d=True)[lead:]
    if len(samples) < last - first:
        raise CorpusError(
            f"{path}: recording must hold the {sound.frames} frames its header promises, got {first + len(samples)}"
        )
    return samples


def _read_pcm(path: Path, stream: BinaryIO, pcm: _Pcm, start_s: float, end_s: float | None) -> NDArray[np.float32]:
    frame_bytes = 2 * pcm.n_channels
    first, last = _segment(path, pcm.sample_rate, pcm.n_bytes // frame_bytes, start_s, end_s)
    stream.seek(pcm.begin + first * frame_bytes)
    pcm_samples = np.frombuffer(stream.read((last - first) * frame_bytes), dtype="<i2")
    samples: NDArray[np.float32] = pcm_samples.reshape(-1, pcm.n_channels) * _INT16_SCALE
    return samples


def _segment(path: Path, rate: int, n_frames: int, start_s: float, end_s: float | None) -> tuple[int, int]:
    """First frame of a segment, and the one behind its last."""
    if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
        raise CorpusError(f"{path}: sample rate must be between {_MIN_RATE_HZ} and {_MAX_RATE_HZ} Hz, got {rate}")
    if n_frames == 0:
        raise CorpusError(f"{path}: recording must hold samples, got none")
    first = round(start_s * rate)
    if first >= n_frames or (end_s is not None and end_s > n_frames / rate + _END_SLACK_S):
        raise CorpusError(
            f"{path}: segment must lie within the recording's {n_frames / rate:.3f} s, got {_span(start_s, end_s)}"
        )
    return first, n_frames if end_s is None else min(round(end_s * rate), n_frames)


def _check_container(path: Path, stream: BinaryIO, n_bytes: int) -> _Pcm | None:
    """Refuse empty files, and truncated ones whose length libsndfile would silently correct to what is there.

    Returns where the samples of a WAV file of 16 bits are: they need no decoder, which takes three times as long.
    """
    if n_bytes == 0:
        raise CorpusError(f"{path}: recording must hold samples, got an empty file")
    magic = stream.read(12)
    if magic[:4] == b"OggS":
        _check_ogg_ends(path, stream, n_bytes)
    elif magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
        return _check_chunks(path, stream, n_bytes, magic)
    return None


def _check_ogg_ends(path: Path, stream: BinaryIO, n_bytes: int) -> None:
    """The last page of an Ogg file is whole, and flagged as the last."""
    stream.seek(max(0, n_bytes - _MAX_OGG_PAGE))
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    n_segments = page[26] if len(page) > 26 else 0
    is_whole = len(page) >= 27 + n_segments + sum(page[27 : 27 + n_segments])
    if not (is_whole and page[5] & 4):
        raise CorpusError(f"{path}: recording must end with the last page of its Ogg stream, got a truncated file")


def _check_chunks(path: Path, stream: BinaryIO, n_bytes: int, magic: bytes) -> _Pcm | None:
    """WAV and AIFF files hold as many bytes of audio as their header promises."""
    big_endian = magic[:4] in (b"RIFX", b"FORM")
    long_bytes = None  # RF64 keeps lengths over 4 GiB in a chunk of their own
    layout = b""
    while len(header := stream.read(8)) == 8:
        name, promised = header[:4], int.from_bytes(header[4:], "big" if big_endian else "little")
        begin = stream.tell()
        if name in (b"data", b"SSND"):
            if promised >= _UNKNOWN_BYTES:
                promised = long_bytes or 0
            if n_bytes - begin < promised:
                raise CorpusError(
                    f"{path}: recording must hold the {promised} bytes of audio its header promises, "
                    f"got {n_bytes - begin}; the file is truncated"
                )
            return _pcm(layout, begin, promised) if magic[8:] == b"WAVE" and not big_endian else None
        if name == b"ds64":
            long_bytes = int.from_bytes(stream.read(16)[8:], "little")
        elif name == b"fmt ":
            layout = stream.read(16)
        stream.seek(begin + promised + promised % 2)
    return None


def _pcm(layout: bytes, begin: int, n_bytes: int) -> _Pcm | None:
    """Place of samples of 16 bits that a WAV format chunk describes; None for other samples or an unknown length."""
    if len(layout) < 16 or n_bytes == 0:
        return None
    kind, n_channels, sample_rate, _, frame_bytes, n_bits = struct.unpack("<HHIIHH", layout)
    if (kind, n_bits) != (_WAVE_PCM, 16) or n_channels == 0 or frame_bytes != 2 * n_channels:
        return None
    return _Pcm(begin, n_bytes, sample_rate, n_channels)


def _check_mp3_states_length(path: Path) -> None:
    """Refuse an MP3 file without a frame count: its length would be a guess, wrong by a factor of two and more."""
    with path.open("rb") as stream:
        tag = stream.read(10)
        tag_size = sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        stream.seek(10 + tag_size if tag[:3] == b"ID3" else 0)
        first_frame = stream.read(256)
    if not any(name in first_frame for name in (b"Xing", b"Info", b"VBRI")):
        raise CorpusError(
            f"{path}: MP3 must state its length in a Xing, Info or VBRI header, got none; convert it to FLAC or WAV"
        )
