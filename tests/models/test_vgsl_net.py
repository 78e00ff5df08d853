"""Networks of VGSL specs: padding changes nothing, and each layer by loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow_but

from lstm_jax import gru, lstm, unroll
from lstm_jax.models import vgsl
from lstm_jax.models.blocks import MaskedGroupNorm
from lstm_jax.models.crnn import crnn
from lstm_jax.models.vgsl_net import VGSLNet

SPECS = {
    "lines": "[1,8,0,1 Cr3,3,4 Mp2,2 Gn2 S1(1x0)1,3 Lbx3 O1c5]",
    "strides": "[1,8,0,1 Ct4,2,4,4,2 Gn2 Cs3,5,4,1,1,1,2 Lfys3 Lfx3 Lrx3 O1c5]",
    "branches": "[1,8,0,2 Cm3,3,4 S2,2 ([Lrys3 Lbx2] [Lbys2 Gfx3]) O1s5]",
    "map": "[1,0,0,1 Clr3,3,4 Mp3,3,2,2 Lby2 Lbx2 O2l3]",
    "one answer": "[1,8,0,1 Cr3,3,4 Lfys3 Lbxs3 O0s4]",
    "strips": "[1,1,0,8 Gbx4 O1c5]",
    "no output": "[1,8,0,1 Cr3,3,4 Lfys3 Lrxs2]",
}
WIDTHS = np.array([19, 7])


def random(*shape):
    rng = np.random.default_rng(sum(shape))
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def made(network, images):
    """Params of a network, none of them zero."""
    params = jax.jit(network.init)(jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda p: p + np.float32(0.3 * rng.standard_normal(p.shape)), params
    )


def apply(network, params, images, **options):
    return jax.jit(partial(network.apply, **options))(params, images)


@pytest.mark.parametrize("name", slow_but(SPECS, "lines"))
def test_padding_changes_nothing(name):
    network = VGSLNet(vgsl.parse(SPECS[name]))
    images = random(2, 8, 24, 2 if "0,2 " in SPECS[name] else 1)
    params = made(network, images)
    lengths = jnp.asarray(WIDTHS)
    steps = network.spec.steps(WIDTHS)
    whole = apply(network, params, images, lengths=lengths)
    for row, (width, n) in enumerate(zip(WIDTHS, steps, strict=True)):
        alone = apply(network, params, images[row : row + 1, :, :width])[0]
        got = whole[row]
        if alone.ndim == 1:
            np.testing.assert_allclose(got, alone, atol=1e-5)  # sums in float32
            continue
        assert alone.shape[-2] == n
        np.testing.assert_allclose(got[..., :n, :], alone, atol=1e-5)
        if "O1c" in SPECS[name]:
            np.testing.assert_array_equal(got[n:, 0], 0)
            np.testing.assert_array_equal(got[n:, 1:], -np.inf)
        else:
            np.testing.assert_array_equal(got[..., n:, :], 0)


@pytest.mark.parametrize("name", slow_but(["lines", "strides"], "lines"))
def test_every_weight_counts(name):
    network = VGSLNet(vgsl.parse(SPECS[name]))
    images = random(2, 8, 16, 1)
    params = made(network, images)

    def loss(params):
        out = network.apply(params, images, lengths=jnp.asarray([16, 9]))
        finite = jnp.where(jnp.isfinite(out), out, 0)
        return (finite * random(*out.shape)).sum()

    found = jax.jit(jax.grad(loss))(params)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_the_crnn_has_the_published_number_of_params():
    network = crnn(37)
    image = jax.ShapeDtypeStruct((1, 32, 100, 1), jnp.float32)
    out, params = jax.eval_shape(network.init_with_output, jax.random.key(0), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 8_451_621
    assert out.shape == (1, 24, 37) and network.spec.steps(100) == 24
    with pytest.raises(ValueError, match="expected the blank and one character"):
        crnn(1)
    with pytest.raises(ValueError, match=r"expected \[B, 32, W, 1\]"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 31, 9, 1)))


@pytest.mark.slow
def test_padding_changes_nothing_to_the_crnn():
    network, images = crnn(5), random(2, 32, 24, 1)
    params = jax.jit(network.init)(jax.random.key(0), images)
    got = apply(network, params, images, lengths=jnp.asarray([24, 17]))
    alone = apply(network, params, images[1:, :, :17])[0]
    assert alone.shape == (3, 5) == (network.spec.steps(17), 5)
    np.testing.assert_allclose(got[1, :3], alone, atol=1e-4)  # sums of 4,608
    np.testing.assert_array_equal(got[1, 3:, 1:], -np.inf)


def test_a_summary_is_the_step_that_is_read_last():
    x = random(2, 3, 4, 2)
    network = VGSLNet(vgsl.parse("[1,3,0,2 (Lrys2 Gfys3 Lbys2)]"))
    params = made(network, x)["params"]
    got = network.apply({"params": params}, x)
    assert got.shape == (2, 1, 4, 2 + 3 + 4)
    down = jnp.moveaxis(x, 1, 0)  # H B W C
    names = [
        f"parallel_0_{k}_{word}_0" for k, word in enumerate(("Lrys", "Gfys", "Lbys"))
    ]
    back, forward, both = (params[name] for name in names)
    wanted = [
        unroll(lstm(2), back["backward"], down, reverse=True).ys[0],
        unroll(gru(3), forward["forward"], down).ys[-1],
        unroll(lstm(2), both["forward"], down).ys[-1],
        unroll(lstm(2), both["backward"], down, reverse=True).ys[0],
    ]
    np.testing.assert_allclose(got[:, 0], jnp.concatenate(wanted, -1), atol=1e-6)


def moved(x, axis, a, b, e, f):
    """A reshape by its definition, place by place."""
    sizes = list(x.shape)
    sizes[axis] = a if e == axis else b
    target, parts = (f, b) if e == axis else (e, a)
    old = sizes[target]
    sizes[target] *= parts
    out = np.zeros(sizes, x.dtype)
    for at in np.ndindex(*x.shape):
        high, low = divmod(at[axis], b)
        to = list(at)
        stays, goes = (high, low) if e == axis else (low, high)
        to[axis] = stays
        to[target] = goes * old + at[target]
        out[tuple(to)] = x[at]
    return out


@pytest.mark.parametrize(
    ("word", "numbers"),
    [
        ("S1(1x0)1,3", (1, 1, 4, 1, 3)),
        ("S1(2x2)3,1", (1, 2, 2, 3, 1)),
        ("S3(3x0)2,3", (3, 3, 2, 2, 3)),
        ("S3(2x3)3,1", (3, 2, 3, 3, 1)),
        ("S2(0x5)1,2", (2, 2, 5, 1, 2)),
    ],
)
def test_a_reshape_by_its_definition(word, numbers):
    x = np.asarray(random(2, 4, 10, 6))
    spec = vgsl.parse(f"[1,4,10,6 {word}]")
    got = VGSLNet(spec).apply({}, jnp.asarray(x))
    np.testing.assert_array_equal(got, moved(x, *numbers))
    assert got.shape[1:] == spec.final[1:]


def test_reshapes_of_the_batch_keep_images_apart():
    """Four views side by side become maps of their own, and channels in the end."""
    x = np.asarray(random(3, 2, 12, 1))
    spec = vgsl.parse("[1,2,12,1 S2(4x3)0,2 S0(1x4)0,3]")
    got = np.asarray(VGSLNet(spec).apply({}, jnp.asarray(x)))
    views = np.stack(np.split(x[..., 0], 4, axis=2), axis=-1)
    np.testing.assert_array_equal(got, views)
    swapped = VGSLNet(vgsl.parse("[1,2,12,1 S2(4x3)2,2]")).apply({}, jnp.asarray(x))
    wanted = x.reshape(3, 2, 4, 3).swapaxes(2, 3).reshape(3, 2, 12, 1)
    np.testing.assert_array_equal(swapped, wanted)


def test_windows_become_channels():
    x = np.asarray(random(2, 5, 7, 3))
    got = VGSLNet(vgsl.parse("[1,5,7,3 S2,3]")).apply({}, jnp.asarray(x))
    assert got.shape == (2, 2, 2, 18)
    for y, z in np.ndindex(2, 2):
        window = x[:, 2 * y : 2 * y + 2, 3 * z : 3 * z + 3]
        channels = window.swapaxes(1, 2).reshape(2, -1)
        np.testing.assert_array_equal(got[:, y, z], channels)


def test_the_norm_leaves_padding_out():
    x, lengths = random(2, 3, 6, 4), np.array([4, 6])
    x = jnp.where(jnp.arange(6)[:, None] < lengths[:, None, None, None], x, 0)
    params = {"scale": random(4), "bias": random(4)}
    got = MaskedGroupNorm(2).apply({"params": params}, x, jnp.asarray(lengths))
    for row, n in enumerate(lengths):
        part = np.asarray(x[row, :, :n], np.float64).reshape(3, n, 2, 2)
        mean, var = (f(part, axis=(0, 1, 3), keepdims=True) for f in (np.mean, np.var))
        wanted = ((part - mean) / np.sqrt(var + 1e-5)).reshape(3, n, 4)
        wanted = wanted * params["scale"] + params["bias"]
        np.testing.assert_allclose(got[row, :, :n], wanted, atol=1e-5)  # float32


@pytest.mark.parametrize("word", ["Do0.5", "Do0.5,2"])
def test_dropout_is_that_of_an_image_alone(word):
    network = VGSLNet(vgsl.parse(f"[1,3,0,4 {word}]"))
    x = jnp.ones((2, 3, 20, 4))
    keys = jax.random.split(jax.random.key(0), 2)
    got = network.apply({}, x, keys=keys)
    np.testing.assert_array_equal(network.apply({}, x), x)
    np.testing.assert_array_equal(network.apply({}, x[1:], keys=keys[1:])[0], got[1])
    assert set(np.unique(got)) == {0.0, 2.0}
    whole = (got == got[:, :1, :1]).all((1, 2))  # channels that share one fate
    assert whole.all() == (word == "Do0.5,2")


@pytest.mark.parametrize("shape", [(2, 7, 9, 1), (2, 8, 9, 3), (8, 9, 1), (2, 8, 9)])
def test_images_of_another_shape_are_refused(shape):
    network = VGSLNet(vgsl.parse("[1,8,0,1 Lfys3]"))
    with pytest.raises(ValueError, match=r"the spec wants \[B, 8, W, 1\]"):
        network.init(jax.random.key(0), jnp.zeros(shape))
