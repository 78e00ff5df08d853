import numpy as np
import pytest

from lstm_jax.data import DataError, Dataset, Split, subset


def dataset(targets):
    targets = np.asarray(targets)
    inputs = np.arange(len(targets), dtype=np.uint8)[:, None, None, None]
    train = Split(inputs, targets, np.arange(len(targets)))
    names = tuple(map(str, range(len(targets))))
    splits = {"train": train, "validation": train, "test": train}
    return Dataset("some", splits, ("a", "b"), (), dict.fromkeys(splits, names))


def test_classes_keep_their_shares_and_examples_stay_whole():
    whole = dataset(np.repeat([0, 1], [60, 30]))
    some = subset(whole, 15, seed=0)
    train = some.splits["train"]
    assert np.bincount(train.targets).tolist() == [10, 5]
    np.testing.assert_array_equal(train.inputs[:, 0, 0, 0], train.lengths)
    assert some.names["train"] == tuple(str(row) for row in train.lengths)
    assert some.splits["test"] is whole.splits["test"]
    again, other = (subset(whole, 15, seed=s).splits["train"] for s in (0, 1))
    np.testing.assert_array_equal(again.lengths, train.lengths)
    assert (other.lengths != train.lengths).any()


@pytest.mark.parametrize("count", [10, 15, 19, 1000, 1017])
def test_rare_classes_stay_and_the_limit_is_met(count):
    sizes = np.array([1000, *[2] * 8, 1])
    whole = dataset(np.repeat(np.arange(10), sizes))
    train = subset(whole, count, seed=0).splits["train"]
    got = np.bincount(train.targets, minlength=10)
    assert got.sum() == len(set(train.lengths.tolist())) == count
    assert (got >= 1).all() and (got <= sizes).all()
    if count >= 1000:  # none is far from its share
        assert np.abs(got - sizes * count / sizes.sum()).max() <= 1


def test_numbers_are_drawn_plainly_and_more_than_all_is_all():
    whole = dataset(np.zeros((20, 1), np.float32))
    assert len(subset(whole, 7, seed=0).splits["train"].inputs) == 7
    assert subset(whole, 20, seed=0) is whole


def test_fewer_than_classes_are_refused():
    with pytest.raises(DataError, match="1 training examples are fewer than its 2"):
        subset(dataset([0, 1, 0, 1]), 1, seed=0)
