"""ResNets of frames: weights under PyTorch's names, and a forward pass in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow

from lstm_jax.models import ResNet, load_resnet, resnet_params

safetensors = pytest.importorskip("safetensors.numpy")
PARTS = ("weight", "bias", "running_mean", "running_var")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def shapes(depth):
    """Every array of a ResNet of torchvision by name, without the classifier."""
    found, inputs = {}, 64

    def add(conv, norm, *shape):
        found[f"{conv}.weight"] = shape
        found.update({f"{norm}.{part}": shape[:1] for part in PARTS})
        found[f"{norm}.num_batches_tracked"] = ()

    add("conv1", "bn1", 64, 3, 7, 7)
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        width = 32 << stage
        out = 4 * width if depth == 50 else width
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            if depth == 50:
                add(f"{at}.conv1", f"{at}.bn1", width, inputs, 1, 1)
                add(f"{at}.conv2", f"{at}.bn2", width, width, 3, 3)
                add(f"{at}.conv3", f"{at}.bn3", out, width, 1, 1)
            else:
                add(f"{at}.conv1", f"{at}.bn1", width, inputs, 3, 3)
                add(f"{at}.conv2", f"{at}.bn2", out, width, 3, 3)
            if block == 0 and inputs != out:
                add(f"{at}.downsample.0", f"{at}.downsample.1", out, inputs, 1, 1)
            inputs = out
    return found


def random_state(depth, seed=0):
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes(depth).items():
        if len(shape) == 4:
            spread = (2 / np.prod(shape[1:])) ** 0.5
            state[name] = rng.standard_normal(shape, np.float32) * np.float32(spread)
        elif name.endswith("num_batches_tracked"):
            state[name] = np.asarray(7)
        elif name.endswith(("running_var", "weight")):
            state[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
        else:
            state[name] = rng.normal(0, 0.5, shape).astype(np.float32)
    return state


@pytest.fixture(scope="module")
def state():
    return random_state(18)


@pytest.fixture(scope="module")
def params(state):
    return resnet_params(state, 18)


def convolve(x, kernel, stride):
    """`x [N, C, H, W]`, padded alike on all sides by half the kernel."""
    pad = kernel.shape[-1] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[-2:], (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, kernel, optimize=True)


def forward(state, frames):
    """ResNet-18 in NumPy, float64, straight from the arrays of PyTorch."""

    def unit(x, conv, norm, stride=1):
        y = convolve(x, state[f"{conv}.weight"].astype(np.float64), stride)
        gain, bias, mean, var = (
            state[f"{norm}.{part}"][:, None, None].astype(np.float64) for part in PARTS
        )
        return gain * (y - mean) / np.sqrt(var + 1e-5) + bias

    x = np.maximum(unit(frames.transpose(0, 3, 1, 2), "conv1", "bn1", 2), 0)
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    x = windows[:, :, ::2, ::2].max((-1, -2))
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and not block else 1
            y = np.maximum(unit(x, f"{at}.conv1", f"{at}.bn1", stride), 0)
            y = unit(y, f"{at}.conv2", f"{at}.bn2")
            if stride == 2:
                x = unit(x, f"{at}.downsample.0", f"{at}.downsample.1", 2)
            x = np.maximum(x + y, 0)
    return x.mean((2, 3))


@pytest.mark.parametrize("size", [slow((32, 40)), (37, 23)])
def test_equals_a_forward_pass_in_numpy(state, params, size):
    frames = np.random.default_rng(1).standard_normal((2, *size, 3))
    want = forward(state, frames)
    got = jax.jit(ResNet(18).apply)({"params": params}, frames.astype(np.float32))
    assert got.shape == (2, 512)
    # 20 layers in float32, each with sums of up to 4,608 products.
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_grey_is_the_same_in_three_channels(params):
    grey = jax.random.normal(jax.random.key(0), (1, 16, 16, 1))
    apply = jax.jit(ResNet(18).apply)
    np.testing.assert_array_equal(
        apply({"params": params}, grey),
        apply({"params": params}, jnp.tile(grey, (1, 1, 1, 3))),
    )


@pytest.mark.parametrize("depth", [18, slow(34), slow(50)])
def test_every_array_has_its_place(depth):
    blank = {k: np.broadcast_to(np.float32(1), s) for k, s in shapes(depth).items()}
    found = resnet_params(blank | {"fc.weight": np.ones((7, 512))}, depth)
    frame = jnp.zeros((1, 32, 32, 3))
    want = jax.eval_shape(ResNet(depth).init, jax.random.key(0), frame)["params"]
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, want)
    # As many numbers as in torchvision's, without the classifier of 1,000 classes.
    total = sum(a.size for k, a in blank.items() if a.ndim and "running" not in k)
    published = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}
    classifier = 1000 * (2048 if depth == 50 else 512) + 1000
    assert total == published[depth] - classifier
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == total


def test_random_blocks_begin_as_the_identity():
    @jax.jit  # the kernels are not computed
    def norms(key):
        params = ResNet(18).init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        return {name: leaves for name, leaves in params.items() if "scale" in leaves}

    for name, leaves in norms(jax.random.key(1)).items():
        last = name.startswith("layer") and name.endswith("bn2")
        assert (leaves["scale"] == (0 if last else 1)).all(), name
        assert (leaves["offset"] == 0).all()


def without(state, name):
    return {key: array for key, array in state.items() if key != name}


MISTAKES = {
    "a missing array": (
        lambda s: without(s, "layer2.0.downsample.1.running_mean"),
        "has no layer2.0.downsample.1.running_mean, which ResNet-18 of torchvision",
    ),
    "nothing of it": (
        lambda s: {"encoder.weight": np.ones(3)},
        r"has no bn1.weight, .* its 1 arrays: encoder.weight$",
    ),
    "another shape": (
        lambda s: s | {"conv1.weight": np.ones((64, 1, 7, 7))},
        r"conv1.weight has shape \(64, 1, 7, 7\); ResNet-18 wants \(64, 3, 7, 7\)",
    ),
    "another depth": (
        lambda s: s | {"layer1.2.conv1.weight": np.ones((64, 64, 3, 3))},
        "no place for layer1.2.conv1.weight and 0 more of its arrays",
    ),
    "not a number": (
        lambda s: s | {"bn1.bias": np.full(64, np.nan)},
        "bn1.bias holds NaN",
    ),
    "variance": (
        lambda s: s | {"bn1.running_var": np.full(64, -1.0)},
        "bn1.running_var is negative",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_state_that_does_not_fit(state, case):
    change, said = MISTAKES[case]
    with pytest.raises(ValueError, match=said) as caught:
        resnet_params(change(state), 18, "some.safetensors")
    assert str(caught.value).startswith("some.safetensors: ")
    assert "\n" not in str(caught.value)


def test_a_file_and_what_is_wrong_with_others(state, params, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    safetensors.save_file(state, path)
    jax.tree.map(np.testing.assert_array_equal, load_resnet(path, 18), params)
    with pytest.raises(ValueError, match=f"{path}: has no layer1.0.bn3.weight, which"):
        load_resnet(path, 50)

    def refused(path, said):
        with pytest.raises(ValueError, match=said) as caught:
            load_resnet(path, 18)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "not a readable .safetensors file")
    path.write_bytes(b"")
    refused(path, "not a readable .safetensors file")
    path.write_bytes(b"PK\x03\x04 a file of torch.save" * 100)
    refused(path, "not a readable .safetensors file")
    refused(tmp_path / "nowhere.safetensors", "no such file")
    refused(tmp_path, "no such file")
