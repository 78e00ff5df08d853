"""Models that predict frames: their published sizes, and what they read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow_but

from lstm_jax import conv_lstm, readout, st_lstm, stack
from lstm_jax.models import EncoderForecaster, FrameForecaster
from lstm_jax.models.blocks import from_patches, to_patches


def shi(*widths):
    cells = tuple(conv_lstm(d, (5, 5), peepholes="channel") for d in widths)
    return EncoderForecaster(cells, horizon=10, patch=4)


def forecaster(cell):
    return FrameForecaster(readout(cell, 16, use_bias=False), inputs=10, patch=4)


PUBLISHED = {
    # Shi et al. 2015, table 1.
    "ConvLSTM, one layer": (shi(256), 13_524_496),
    "ConvLSTM, two layers": (shi(128, 128), 10_042_896),
    "ConvLSTM, three layers": (shi(128, 64, 64), 7_585_296),
    # OpenSTL, of the weights that a step uses.
    "ConvLSTM-S": (
        forecaster(stack(*[conv_lstm(128, (5, 5), use_bias=False)] * 4)),
        11_675_648,
    ),
    "PredRNN": (forecaster(st_lstm(128, (5, 5), layers=4)), 23_838_720),
}


@pytest.mark.parametrize(
    "name", slow_but(PUBLISHED, "ConvLSTM, two layers", "ConvLSTM-S")
)
def test_parameters_are_as_many_as_published(name):
    network, count = PUBLISHED[name]
    clips = jnp.zeros((1, 12, 64, 64, 1))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), clips))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_patches_are_squares_and_come_back():
    clips = jnp.arange(2 * 3 * 4 * 6 * 2).reshape(2, 3, 4, 6, 2)
    patches = to_patches(clips, 2)
    assert patches.shape == (2, 3, 2, 3, 8)
    np.testing.assert_array_equal(
        patches[1, 2, 1, 2].reshape(2, 2, 2), clips[1, 2, 2:4, 4:6]
    )
    np.testing.assert_array_equal(from_patches(patches, 2), clips)
    with pytest.raises(ValueError, match="4x6"):
        to_patches(clips, 4)


def clips(frames=6):
    return jax.random.uniform(jax.random.key(1), (2, frames, 8, 8, 1))


def test_a_forecaster_reads_given_frames_and_then_its_own():
    network = FrameForecaster(readout(conv_lstm(3, (3, 3)), 4), inputs=3, patch=2)
    params = network.init(jax.random.key(0), clips())
    out = network.apply(params, clips())
    assert out.shape == (2, 5, 8, 8, 1)
    other = network.apply(params, clips().at[:, 3:].set(0))  # never read
    np.testing.assert_array_equal(out, other)
    shown = jnp.concatenate([clips()[:, :3], out[:, 2:4], clips()[:, 5:]], 1)
    longer = network.clone(inputs=5)  # given what it would have read by itself
    np.testing.assert_allclose(longer.apply(params, shown), out, atol=1e-6)


@pytest.mark.parametrize("late, same", [(0.0, "given"), (1.0, "free")])
def test_sampling_goes_from_given_frames_to_own(late, same):
    network = FrameForecaster(readout(conv_lstm(3, (3, 3)), 4), inputs=3, patch=2)
    params = network.init(jax.random.key(0), clips())
    keys = jax.random.split(jax.random.key(2), 2)
    run = jax.jit(
        lambda late: network.apply(params, clips(), sampling=(0.0, late), keys=keys)
    )
    wanted = network.clone(inputs=3 if same == "free" else 6).apply(params, clips())
    np.testing.assert_allclose(run(jnp.float32(late)), wanted, atol=1e-6)


def test_decoupling_is_sown_and_between_0_and_1():
    cell = readout(st_lstm(3, (3, 3), layers=2, decouple=True), 4)
    network = FrameForecaster(cell, inputs=3, patch=2)
    params = {"params": network.init(jax.random.key(0), clips())["params"]}
    out, sown = network.apply(params, clips(), mutable=["losses"])
    (overlap,) = sown["losses"]["decoupling"]
    assert overlap.shape == (2,) and ((0 < overlap) & (overlap < 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("engine, remat", [("scan", "sqrt"), ("vjp", None), ("vjp", 2)])
def test_engines_and_remat_change_no_number(engine, remat):
    def gradient(**options):
        network = EncoderForecaster((conv_lstm(3, (3, 3)),) * 2, 3, patch=2, **options)
        params = network.init(jax.random.key(0), clips())
        return jax.jit(jax.grad(lambda p: jnp.square(network.apply(p, clips())).sum()))(
            params
        )

    wanted, found = gradient(engine="scan"), gradient(engine=engine, remat=remat)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, wanted
    )
