"""Orders of training examples in which every class occurs equally often."""

import numpy as np
import pytest

from lstm_jax import data

TARGETS = np.repeat([0, 1, 2], [95, 3, 4])


def test_every_class_occurs_equally_often():
    order = data.balanced_order(TARGETS, seed=0)
    for epoch in range(3):
        rows = order(epoch)
        assert np.bincount(TARGETS[rows]).tolist() == [34, 34, 34]
        # of one class each example as often as any other, or once more
        for k in (1, 2):
            times = np.unique(rows[TARGETS[rows] == k], return_counts=True)[1]
            assert len(times) == (TARGETS == k).sum() and np.ptp(times) <= 1
        assert len(np.unique(rows[TARGETS[rows] == 0])) == 34


def test_what_does_not_divide_goes_to_some_classes():
    targets = np.array([0, 0, 0, 0, 1])
    counts = [
        np.bincount(targets[data.balanced_order(targets, 0)(k)]) for k in range(9)
    ]
    assert sorted({tuple(count.tolist()) for count in counts}) == [(2, 3), (3, 2)]


def test_an_order_follows_from_seed_and_epoch_alone():
    first, second = (data.balanced_order(TARGETS, seed=3) for _ in range(2))
    second(0)  # another history
    np.testing.assert_array_equal(first(5), second(5))
    assert (first(5) != first(6)).any()
    assert (first(5) != data.balanced_order(TARGETS, seed=4)(5)).any()
    # a majority is seen whole, over epochs
    seen = {row for epoch in range(20) for row in first(epoch).tolist()}
    assert len(seen) == len(TARGETS)


@pytest.mark.parametrize("share", [(0, 1), (1, 2)])
def test_batches_take_their_rows_from_an_order(share):
    split = data.Split(np.arange(102, dtype=np.uint8).reshape(-1, 1, 1, 1), TARGETS)
    order = data.balanced_order(TARGETS, seed=0)
    options = dict(seed=0, share=share, order=order)
    for step in (0, 9, 10):  # ten steps of an epoch
        rows = order(step // 10)[step % 10 * 10 :][:10]
        rows = rows[share[0] * 5 :][: 10 // share[1]]
        batch = data.train_batch(split, 10, step=step, **options)
        np.testing.assert_array_equal(batch["inputs"].ravel(), rows)
        found = data.train_rows(102, 10, step=step, **options)["rows"]
        np.testing.assert_array_equal(found, rows)
