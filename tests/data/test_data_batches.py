"""Orders that follow from (seed, epoch, step); padding that counts nothing twice."""

import time

import numpy as np
import pytest

from lstm_jax.data import (
    DataError,
    Dataset,
    Split,
    batch_indices,
    eval_batches,
    in_order,
    normalization,
    prefetch,
    steps_per_epoch,
    train_batch,
)


def split_of(n):
    images = np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2, 1)
    return Split(images, np.arange(n, dtype=np.int32))


def test_an_epoch_is_a_permutation_and_epochs_differ():
    epochs = [
        np.concatenate([batch_indices(12, 4, seed=3, step=s) for s in range(e, e + 3)])
        for e in (0, 3)
    ]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(12)) and order.dtype == np.int64
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_step_needs_no_history():
    straight = [batch_indices(10, 3, seed=0, step=s).tolist() for s in range(20)]
    jumped = {s: batch_indices(10, 3, seed=0, step=s).tolist() for s in (17, 2, 19, 5)}
    assert all(straight[s] == rows for s, rows in jumped.items())
    assert batch_indices(10, 3, seed=1, step=0).tolist() != straight[0]
    # Written down, so that a change of the order cannot pass unseen.
    assert straight[0] == np.random.default_rng([0, 0]).permutation(10)[:3].tolist()


def test_changing_a_batch_leaves_the_order_alone():
    first = batch_indices(10, 5, seed=0, step=0)
    kept = first.copy()
    first[:] = 0
    assert batch_indices(10, 5, seed=0, step=0).tolist() == kept.tolist()


def test_train_batch_takes_the_rows():
    split = split_of(8)
    batch = train_batch(split, 4, seed=0, step=1)
    rows = batch_indices(8, 4, seed=0, step=1)
    np.testing.assert_array_equal(batch["inputs"], split.inputs[rows])
    np.testing.assert_array_equal(batch["targets"], rows)
    assert batch["mask"].dtype == np.float32 and batch["mask"].tolist() == [1] * 4


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_evaluation_counts_every_example_once(batch_size):
    split = split_of(7)
    seen = []
    for batch in eval_batches(split, batch_size):
        assert all(len(value) == batch_size for value in batch.values())
        real = batch["mask"] == 1
        seen += batch["targets"][real].tolist()
        assert (batch["inputs"][~real] == split.inputs[0]).all()
    assert seen == list(range(7))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_what_is_made_of_batches_is_one_for_each_example_in_order(batch_size):
    split = split_of(7)
    outputs = [batch["targets"] for batch in eval_batches(split, batch_size)]
    np.testing.assert_array_equal(in_order(split, batch_size, outputs), split.targets)


@pytest.mark.parametrize(
    ("n", "batch_size", "words"),
    [
        (
            7,
            8,
            "batch size 8 is larger than .* 7 examples; give --batch-size=7 or less",
        ),
        (7, 0, "batch size 0 is not positive"),
        (7, -2, "batch size -2 is not positive"),
    ],
)
def test_batch_sizes_that_do_not_fit(n, batch_size, words):
    for call in (
        lambda: steps_per_epoch(n, batch_size),
        lambda: batch_indices(n, batch_size, seed=0, step=0),
        lambda: train_batch(split_of(n), batch_size, seed=0, step=0),
    ):
        with pytest.raises(DataError, match=words):
            call()


def test_other_wrong_numbers():
    assert steps_per_epoch(10, 3) == 3 and steps_per_epoch(3, 3) == 1
    with pytest.raises(DataError, match="batch size 0 is not positive"):
        eval_batches(split_of(3), 0)  # at the call, not at the first batch
    with pytest.raises(DataError, match="got seed -1, step 0"):
        batch_indices(4, 2, seed=-1, step=0)


def test_prefetch_keeps_the_order_and_works_ahead():
    made = []
    out = prefetch(lambda x: made.append(x) or 10 * x, range(40), ahead=4)
    assert next(out) == 0
    end = time.monotonic() + 30
    while len(made) < 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert 4 <= len(made) < 40
    assert list(out) == [10 * x for x in range(1, 40)]
    assert sorted(made) == list(range(40))
    assert list(prefetch(int, [])) == []


def test_prefetch_stops_with_who_reads():
    made = []
    out = prefetch(lambda x: made.append(x) or x, range(1000), ahead=3)
    assert [next(out), next(out)] == [0, 1]
    out.close()  # waits for what is in work
    assert len(made) <= 5


def test_an_error_in_a_thread_arrives():
    def broken(x):
        raise OSError("torn file")

    with pytest.raises(OSError, match="torn file"):
        list(prefetch(broken, range(3)))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_shares_of_processes_are_the_batch(processes):
    split = split_of(11)
    shares = [(i, processes) for i in range(processes)]
    for number in range(4):
        want = train_batch(split, 8, seed=3, step=number)
        got = [train_batch(split, 8, seed=3, step=number, share=s) for s in shares]
        for name, whole in want.items():
            np.testing.assert_array_equal(np.concatenate([g[name] for g in got]), whole)
    for batches in zip(*(eval_batches(split, 8, share=s) for s in shares), strict=True):
        assert len({len(batch["mask"]) for batch in batches}) == 1
    masks = [
        sum(b["mask"].sum() for b in eval_batches(split, 8, share=s)) for s in shares
    ]
    assert sum(masks) == 11


def test_normalization_reaches_its_range():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5000, 3, 2, 3), dtype=np.uint8)
    images[..., 1] = 7
    images[0, 0, 0] = [0, 7, 255]
    images[1, 0, 0] = [255, 7, 0]
    for how, low, high in (("unit", 0, 1), ("symmetric", -1, 1)):
        offset, scale = normalization(images, how)
        out = (images - offset) * scale
        assert offset.dtype == scale.dtype == np.float32 and offset.shape == (3,)
        np.testing.assert_allclose([out.min(), out.max()], [low, high], atol=1e-6)
    offset, scale = normalization(images, "standard")
    out = (images - offset).astype(np.float64) * scale
    # float32 constants over 30,000 pixels
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), [1, 0, 1], atol=1e-5)
    assert scale[1] == 1


def test_normalization_errors():
    images = np.zeros((1, 2, 2, 1), np.uint8)
    with pytest.raises(
        DataError, match="'standart' is none .* did you mean 'standard'"
    ):
        normalization(images, "standart")
    with pytest.raises(DataError, match="standard needs at least one image; got 0"):
        normalization(images[:0], "standard")


def test_image_shape_is_that_of_train():
    data = Dataset("x", {"train": split_of(3)}, (), ())
    assert data.image_shape == (2, 2, 1)
