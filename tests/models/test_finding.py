"""Networks that say where something is: maps of classes, and boxes."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow_but

from lstm_jax import bottleneck_conv_lstm, conv_lstm, gru, lstm, unroll
from lstm_jax.models.blocks import conv
from lstm_jax.models.detectors import DenseDetector, RecurrentDetector
from lstm_jax.models.segmenters import ReNet, Segmenter

PARTS = {
    "renet": dict(renet=(lstm(4), gru(3))),
    "skips": dict(skips=(conv_lstm(3, (3, 3)),)),
    "convolutions": dict(bottom=(6, 6)),
}


def random(*shape):
    rng = np.random.default_rng(sum(shape))
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def apply(network, params, inputs, **options):
    return jax.jit(partial(network.apply, **options))(params, inputs)


def made(network, inputs, **options):
    """The network's params, none of them zero, and what it says."""
    params = jax.jit(network.init)(jax.random.key(0), inputs)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: p + np.float32(0.1 * rng.standard_normal(p.shape)), params
    )
    return params, apply(network, params, inputs, **options)


def test_a_renet_reads_each_row_then_each_column():
    x = random(2, 3, 4, 5)  # B H W C
    params, got = made(ReNet(lstm(2)), x)

    def both_ways(name, line):  # [N, C]
        ways = [
            unroll(lstm(2), params["params"][f"{name}_{way}"], line, reverse=reverse).ys
            for way, reverse in (("forward", False), ("backward", True))
        ]
        return jnp.concatenate(ways, axis=-1)

    @jax.jit
    def one(image):
        rows = jnp.stack([both_ways("x", row) for row in image])
        columns = [both_ways("y", rows[:, at]) for at in range(4)]
        return jnp.stack(columns, axis=1)

    for image, found in zip(x, got, strict=True):
        np.testing.assert_allclose(found, one(image), atol=1e-6)  # sums in float32


def test_a_place_of_a_renet_has_seen_all_of_the_map():
    x = random(1, 3, 4, 2)
    network = ReNet(lstm(2))
    params, _ = made(network, x)
    seen = jax.jit(jax.grad(lambda x: network.apply(params, x)[0, 1, 2].sum()))(x)
    assert (jnp.abs(seen).max(axis=-1) > 0).all()


@pytest.mark.parametrize("size", [(3, 3), (1, 2)])
def test_the_convolution_is_flaxs(size):
    x = random(2, 5, 4, 3)
    params = nn.Conv(6, size).init(jax.random.key(0), x)

    def outcome(layer):
        def loss(params, x):
            return jnp.sin(layer.apply(params, x)).sum()

        return layer.apply(params, x), jax.jit(jax.grad(loss, (0, 1)))(params, x)

    wanted, got = outcome(nn.Conv(6, size)), outcome(conv(6, size))
    # Float32: another order of summation.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_every_weight_of_a_segmenter_counts(name):
    images = random(2, 8, 12, 1)
    network = Segmenter(outputs=3, widths=(8, 8), patch=2, **PARTS[name])
    params, got = made(network, images)
    assert got.shape == (2, 8, 12, 3) and got.dtype == jnp.float32
    alone = apply(network, params, images[1:])
    np.testing.assert_allclose(got[1:], alone, atol=1e-5)  # as wide sums as above
    weights = random(*got.shape)
    found = jax.jit(jax.grad(lambda p: (network.apply(p, images) * weights).sum()))(
        params
    )
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found))
    with pytest.raises(ValueError, match="6x12, not divisible by 4"):
        network.apply(params, images[:, :6])


CLIPS = {
    "segmenter": Segmenter(
        outputs=2, widths=(4, 4), recurrent_cell=conv_lstm(4, (3, 3)), bottom=(4,)
    ),
    "detector": DenseDetector(
        outputs=2, widths=(4, 4), recurrent_cell=bottleneck_conv_lstm(4), hidden=(4,)
    ),
}


@pytest.mark.parametrize("name", slow_but(CLIPS, "segmenter"))
def test_a_frame_knows_those_before_it_alone(name):
    network, clips = CLIPS[name], random(2, 5, 8, 8, 1)
    params, whole = made(network, clips)
    first, second = (apply(network, params, x) for x in (clips[:, :2], clips[:, 2:]))
    np.testing.assert_allclose(first, whole[:, :2], atol=1e-5)
    assert jnp.abs(second - whole[:, 2:]).max() > 1e-3


def test_boxes_from_every_place_begin_there():
    images = random(1, 16, 8, 1)
    network = DenseDetector(outputs=3, widths=(4, 4))
    params = jax.jit(network.init)(jax.random.key(0), images)
    got = apply(network, params, jnp.zeros_like(images))
    assert got.shape == (1, 8 * 4, 5 + 3)
    corners = np.asarray(got[0, :, :4]).reshape(8, 4, 4)
    x, y = (corners[..., :2] + corners[..., 2:]).transpose(2, 0, 1) / 2
    np.testing.assert_allclose(x[3], (np.arange(4) + 0.5) / 4, atol=1e-6)
    np.testing.assert_allclose(y[:, 1], (np.arange(8) + 0.5) / 8, atol=1e-6)
    sides = corners[..., 2:] - corners[..., :2]
    np.testing.assert_allclose(sides, 1 / (1 + np.exp(1.1)), atol=1e-6)


def test_boxes_come_one_after_another():
    images = random(2, 8, 8, 1)
    network = RecurrentDetector(lstm(4), outputs=3, steps=4, widths=(4, 4))
    params, got = made(network, images)
    assert got.shape == (2, 4, 5 + 3)
    fewer = RecurrentDetector(lstm(4), outputs=3, steps=2, widths=(4, 4))
    np.testing.assert_allclose(apply(fewer, params, images), got[:, :2], atol=1e-6)
    # One program, however many boxes.
    lines = [
        str(jax.make_jaxpr(net.apply)(params, images)).count("\n")
        for net in (network, fewer)
    ]
    assert lines[0] == lines[1]
    assert (got[..., 2:4] > got[..., :2]).all()  # the far corner is the greater one
    assert jnp.abs(got[:, 1:, :2] - got[:, :-1, :2]).max() > 1e-3  # each looks anew
