"""What a network says as it reads, and what its prediction hangs on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import lstm
from lstm_jax.cells import conv_lstm, gru
from lstm_jax.inspect import trace
from lstm_jax.inspect.trace import locations
from lstm_jax.models import SequenceClassifier, sequences

H, D, K = 6, 5, 4


def made(cell, shape, **options):
    order = options.pop("order", sequences.rows())
    model = SequenceClassifier(order, (cell,), K, engine="scan", **options)
    image = jax.random.normal(jax.random.key(1), shape)
    params = jax.jit(model.init)(jax.random.key(0), image[None])["params"]
    params["head"]["kernel"] *= 4  # so that predictions change as it reads
    return model, params, image


@pytest.mark.slow
def test_answers_and_saliency_of_a_bidirectional_network():
    """Both against the model itself: cut short, and by finite differences."""
    model, params, image = made(lstm(D), (H, H, 2), bidirectional=True)
    found = trace(model, params, image, smooth=0, target=2)

    @jax.jit
    def apply(images, lengths):
        return model.apply({"params": params}, images, lengths=lengths)

    ends = jnp.arange(1, H + 1)
    outputs = apply(jnp.stack([image] * H), ends)
    want = np.asarray(jax.nn.softmax(outputs))
    np.testing.assert_allclose(found.predictions, want, atol=2e-6)  # float32 sums
    best = want.argmax(-1)
    assert (best[found.decided :] == best[-1]).all()
    assert found.decided == 0 or best[found.decided - 1] != best[-1]
    assert found.saliency.shape == (H, H)
    size = 1e-2
    for y, x in ((0, 0), (2, 3), (5, 1)):
        moved = [
            image.at[y, x, channel].add(sign * size)
            for channel in (0, 1)
            for sign in (1, -1)
        ]
        up, down, up_2, down_2 = apply(jnp.stack(moved), jnp.full(4, H))[:, 2]
        slopes = np.abs([up - down, up_2 - down_2]) / (2 * size)
        # central differences in float32: 1e-6 / 1e-2, and a term of third order
        np.testing.assert_allclose(found.saliency[y, x], slopes.max(), atol=1e-3)


def test_length_and_the_parts_of_a_gru():
    model, params, image = made(gru(D), (H, H, 1), pooling="mean")
    found = trace(model, params, image, length=4, smooth=None)
    whole = trace(model, params, image, smooth=None)
    assert found.saliency is None and found.kind == "image"
    np.testing.assert_allclose(found.predictions, whole.predictions[:4], atol=1e-6)
    held, more = found.layers["layer_0"], whole.layers["layer_0"]
    assert set(held.gates) == {"r", "z"} and set(held.state) == {"h"}
    np.testing.assert_allclose(held.state["h"], more.state["h"][:4], atol=1e-6)
    assert held.state["h"].shape == held.gates["z"].shape == (4, D)


def test_a_clip():
    model, params, clip = made(
        conv_lstm(D, (3, 3)), (3, 4, 4, 1), order=sequences.frames()
    )
    found = trace(model, params, clip, smooth=2)
    assert found.kind == "clip" and found.saliency.shape == (3, 4, 4)
    assert found.locations.tolist() == [[0], [1], [2]]
    assert found.layers["layer_0"].gates["f"].shape == (3, D)


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        (sequences.rows(), [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (sequences.columns(), [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (sequences.pixels(), [[k] for k in range(8)]),
        (sequences.patches(2), [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_locations_in_a_picture_of_four_by_two(order, wanted):
    model = SequenceClassifier(order, (lstm(2),), 2)
    assert locations(model, (4, 2, 3)).tolist() == wanted


def test_locations_of_a_permutation_and_of_rows_and_columns():
    permuted = SequenceClassifier(sequences.permuted(3), (lstm(2),), 2)
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    wanted = np.asarray(sequences.permuted(3).to_sequence(image))[0].astype(int)
    assert (locations(permuted, (3, 3, 1)) == wanted).all()
    both = SequenceClassifier(sequences.rows_and_columns(), (lstm(2),), 2)
    assert locations(both, (2, 2, 1)).tolist() == [[0, 1, 0, 2], [2, 3, 1, 3]]


def test_mistakes():
    model = SequenceClassifier(sequences.rows(), (lstm(2),), K)
    image = jnp.zeros((3, 2, 1))
    with pytest.raises(ValueError, match="length=9, but the image has 3 steps"):
        trace(model, {}, image, length=9)
    with pytest.raises(ValueError, match="target=7, but the network has 4 outputs"):
        trace(model, {}, image, target=7)
