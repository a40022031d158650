import numpy as np
import pytest

from serfast.features import SegmentSource, loudest_segments


class Clips:
    def __init__(self, clips: list[np.ndarray]) -> None:
        self.clips, self.lengths = clips, np.array([len(clip) for clip in clips])

    def gather(self, indices: np.ndarray) -> np.ndarray:
        return np.concatenate([self.clips[index] for index in indices])


def make_clips(lengths: list[int]) -> tuple[Clips, Clips]:
    generator = np.random.default_rng(0)
    features = [generator.standard_normal((length, 3)).astype(np.float32) for length in lengths]
    energies = [generator.uniform(-15, 0, (length, 1)).astype(np.float32) for length in lengths]
    return Clips(features), Clips(energies)


def test_a_burst_is_found():
    log_energy = np.full(100, -12, dtype=np.float32)
    log_energy[40:65] = -2
    assert loudest_segments(log_energy, n_frames=25, share=0.01).tolist() == [40]
    # 7 of 76 segments: those that hold most of the burst.
    assert loudest_segments(log_energy, n_frames=25, share=0.09).tolist() == list(range(37, 44))


@pytest.mark.parametrize("share", [0.1, 0.37, 1.0])
@pytest.mark.parametrize("n_frames", [1, 7, 25])
def test_the_loudest_segments_have_the_largest_sums_of_energy(n_frames: int, share: float):
    log_energy = np.random.default_rng(0).uniform(-20, 0, 130).astype(np.float32)
    energy = np.exp(log_energy.astype(np.float64)).tolist()
    sums = [sum(energy[first : first + n_frames]) for first in range(131 - n_frames)]
    chosen = loudest_segments(log_energy, n_frames=n_frames, share=share).tolist()
    assert len(chosen) == int(np.ceil(share * len(sums) - 1e-9))
    assert chosen == sorted(sorted(range(len(sums)), key=lambda first: -sums[first])[: len(chosen)])


def test_energy_is_summed_and_not_its_logarithm():
    log_energy = np.full(20, -3, dtype=np.float32)
    log_energy[[3, 4]] = [2, -30]  # one loud frame outweighs the silent one beside it
    assert loudest_segments(log_energy, n_frames=2, share=0.01).tolist() == [2]
    assert loudest_segments(log_energy, n_frames=2, share=2 / 19).tolist() == [2, 3]


def test_of_equals_the_earlier_is_kept():
    log_energy = np.tile(np.array([-1, 0, -2], dtype=np.float32), 300)
    assert loudest_segments(log_energy, n_frames=1, share=1 / 6).tolist() == list(range(1, 450, 3))


@pytest.mark.parametrize(
    ("n_segments", "share", "n_kept"),
    [(1, 0.1, 1), (10, 0.1, 1), (11, 0.1, 2), (30, 0.1, 3), (100, 0.07, 7), (101, 0.07, 8), (30, 1.0, 30)],
)
def test_the_share_is_rounded_up(n_segments: int, share: float, n_kept: int):
    features, energies = make_clips([n_segments + 24])
    source = SegmentSource(features, energies, n_frames=25, share=share)
    assert source.lengths.tolist() == [n_kept]
    assert source.gather(np.array([0])).shape == (n_kept, 75)


def test_a_segment_is_its_frames_end_to_end():
    features, energies = make_clips([60, 40])
    source = SegmentSource(features, energies, n_frames=7, share=0.2)
    order = np.array([1, 0])
    expected = [
        features.clips[index][first : first + 7].ravel()
        for index in order
        for first in loudest_segments(energies.clips[index][:, 0], n_frames=7, share=0.2)
    ]
    assert np.array_equal(source.gather(order), expected)
    assert source.lengths[order].sum() == len(expected)


@pytest.mark.parametrize("length", [1, 2, 24, 25])
def test_a_short_utterance_is_one_segment_filled_up_with_its_last_frame(length: int):
    features, energies = make_clips([length])
    source = SegmentSource(features, energies, n_frames=25, share=0.1)
    assert source.lengths.tolist() == [1]
    segment = source.gather(np.array([0])).reshape(25, 3)
    assert np.array_equal(segment[:length], features.clips[0])
    assert (segment[length:] == features.clips[0][-1]).all()


def test_other_utterances_change_nothing():
    features, energies = make_clips([60, 3, 200])
    source = SegmentSource(features, energies, n_frames=25, share=0.1)
    together = np.split(source.gather(np.arange(3)), np.cumsum(source.lengths)[:-1])
    for index, segments in enumerate(together):
        assert np.array_equal(source.gather(np.array([index])), segments)
