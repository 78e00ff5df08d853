"""Buckets of lines: the least padding, every line once, batches by their step alone."""

import itertools

import numpy as np
import pytest

from lstm_jax.data import (
    DataError,
    Split,
    bucket_of,
    bucket_widths,
    eval_batches,
    in_order,
    line_batches,
)


def padded(lengths, widths):
    return sum(widths[k] for k in bucket_of(lengths, widths))


def split_of(lengths):
    """Lines whose grey is their number, 255 beyond their columns."""
    n, widest = len(lengths), max(lengths)
    inputs = np.full((n, 4, widest, 1), 255, np.uint8)
    for k, length in enumerate(lengths):
        inputs[k, :, :length] = k
    targets = np.arange(1, n + 1, dtype=np.int32)[:, None]
    return Split(inputs, targets, np.asarray(lengths, np.int32))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_other_widths_pad_less(count):
    rng = np.random.default_rng(count)
    for _ in range(20):
        lengths = rng.integers(1, 90, 30)
        found = bucket_widths(lengths, count)
        assert list(found) == sorted(set(found)) and len(found) <= count
        assert found[-1] >= lengths.max() and all(w % 8 == 0 for w in found)
        every = np.unique(-(-lengths // 8) * 8)
        best = min(
            padded(lengths, sorted({*some, every[-1]}))
            for some in itertools.combinations(every, min(count - 1, len(every)))
        )
        assert padded(lengths, found) == best


def test_fewer_widths_than_asked_for_and_none():
    assert bucket_widths(np.int32([9, 10, 16]), 4) == (16,)
    with pytest.raises(DataError, match="buckets: got 0, want 1 or more"):
        bucket_widths(np.int32([9]), 0)


def test_a_line_that_is_too_wide_goes_into_the_last():
    np.testing.assert_array_equal(bucket_of([8, 9, 99], (8, 16)), [0, 1, 1])


def test_an_epoch_has_every_line_once_narrow_ones_first_and_then_mixed():
    lengths = np.random.default_rng(0).integers(4, 60, 50)
    split, widths = split_of(lengths), bucket_widths(lengths, 3)
    batches = line_batches(split, 4, seed=1, widths=widths)
    per_epoch = 50 // 4
    shapes = []
    for epoch in range(3):
        seen = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            batch = batches(step)
            again = line_batches(split, 4, seed=1, widths=widths)(step)
            np.testing.assert_array_equal(again["inputs"], batch["inputs"])
            shapes.append(batch["inputs"].shape[2])
            numbers = batch["targets"][:, 0] - 1
            seen += numbers.tolist()
            np.testing.assert_array_equal(batch["lengths"], lengths[numbers])
            assert batch["inputs"].shape[2] in widths
            for row, k in zip(batch["inputs"], numbers, strict=True):
                assert (row[:, : lengths[k]] == k).all()
                assert (row[:, lengths[k] :] == 255).all()
        assert len(set(seen)) == len(seen) == 4 * per_epoch
    assert set(shapes) <= set(widths)
    assert shapes[:per_epoch] == sorted(shapes[:per_epoch])
    assert shapes[per_epoch : 2 * per_epoch] != sorted(shapes[:per_epoch])


def test_few_lines_of_many_widths_still_fill_batches():
    split = split_of([10, 20, 30, 40, 50])
    batches = line_batches(split, 4, seed=0, widths=(16, 24, 32, 40, 56))
    assert (
        batches(0)["inputs"].shape == (4, 4, 56, 1) or batches(0)["lengths"].max() < 50
    )
    with pytest.raises(DataError, match="give --batch-size=5 or less"):
        line_batches(split, 6, seed=0, widths=(56,))


def test_two_processes_share_a_batch():
    split = split_of([10, 20, 30, 40])
    options = dict(seed=0, widths=(40,))
    whole = line_batches(split, 4, **options)(3)
    parts = [line_batches(split, 4, share=(k, 2), **options)(3) for k in range(2)]
    for name, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), array)


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_what_is_made_of_buckets_comes_back_in_order(size):
    lengths = np.random.default_rng(2).integers(4, 60, 23)
    split, widths = split_of(lengths), bucket_widths(lengths, 3)
    outputs, real = [], 0
    for batch in eval_batches(split, size, widths=widths):
        assert len(batch["mask"]) == size
        real += int(batch["mask"].sum())
        columns = np.arange(batch["inputs"].shape[2])
        outputs.append(batch["targets"] * (columns < batch["lengths"][:, None]))
    assert real == 23
    found = in_order(split, size, outputs, widths)
    columns = np.arange(found.shape[1])
    wanted = split.targets * (columns < lengths[:, None])
    np.testing.assert_array_equal(found, wanted)
