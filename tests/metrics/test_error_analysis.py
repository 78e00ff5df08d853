"""The frame that stands for a video."""

import numpy as np

from lstm_jax.metrics import middle_frames


def test_a_clip_is_shown_by_the_middle_of_its_valid_frames():
    clips = np.arange(2 * 6 * 1 * 1 * 1, dtype=np.uint8).reshape(2, 6, 1, 1, 1)
    assert middle_frames(clips).ravel().tolist() == [3, 9]
    lengths = np.array([1, 4])
    assert middle_frames(clips, lengths).ravel().tolist() == [0, 8]
    pictures = clips[:, 0]
    assert middle_frames(pictures) is pictures
