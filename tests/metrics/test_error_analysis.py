"""Classes against the rest, and the frame that stands for a video."""

import numpy as np

from lstm_jax.metrics import middle_frames, one_against_rest
from lstm_jax.tasks import classification, multilabel


def test_pairs_hold_known_entries_only():
    p = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
    task = classification(("no", "yes"))
    pairs = one_against_rest(task, p, np.array([1, 0, 0]))
    assert [truth.tolist() for _, truth in pairs] == [[False, True, True], [True, 0, 0]]
    np.testing.assert_array_equal(pairs[1][0], p[:, 1])
    targets = np.array([[1, np.nan], [0, 1], [np.nan, np.nan]])
    (a, b) = one_against_rest(multilabel("ab"), p, targets)
    assert a[0].tolist() == [0.2, 0.6] and a[1].tolist() == [True, False]
    assert b[0].tolist() == [0.4] and b[1].tolist() == [True]


def test_a_clip_is_shown_by_the_middle_of_its_valid_frames():
    clips = np.arange(2 * 6 * 1 * 1 * 1, dtype=np.uint8).reshape(2, 6, 1, 1, 1)
    assert middle_frames(clips).ravel().tolist() == [3, 9]
    lengths = np.array([1, 4])
    assert middle_frames(clips, lengths).ravel().tolist() == [0, 8]
    pictures = clips[:, 0]
    assert middle_frames(pictures) is pictures
