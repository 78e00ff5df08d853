"""Forecasting against NumPy loops and against scikit-image; its report and pictures."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow

from lstm_jax.figures import forecast_gif
from lstm_jax.figures.visualization import to_uint8
from lstm_jax.metrics.image_similarity import frame_scores, ssim
from lstm_jax.tasks import Task, forecasting

LOSSES = ("mse", "l1", "bce", "ssim")


def clips(n=3, t=5, size=(16, 14), channels=1, seed=0):
    """Smooth uint8 clips [n, t, H, W, C] with bright and dark places."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, t, *size, channels))
    for axis in (2, 3):
        x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / 3
    return np.uint8(255 * np.clip(2.5 * x - 0.75, 0, 1))


def guesses(targets, frames, noise=0.2, seed=1):
    """Outputs for the last frames, in places outside of [0, 1]."""
    rng = np.random.default_rng(seed)
    true = targets[:, -frames:] / 255
    return np.float32(true + noise * rng.normal(size=true.shape))


def batch(targets, mask=None):
    mask = np.ones(len(targets), np.float32) if mask is None else np.float32(mask)
    return {"targets": jnp.asarray(targets), "mask": jnp.asarray(mask)}


def ssim_reference(a, b):
    """SSIM of two frames [H, W, C] in float64, one window at a time."""
    height, width, channels = a.shape
    size = min(11, height - (1 - height % 2), width - (1 - width % 2))
    offsets = np.arange(size) - size // 2
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for c in range(channels):
        for i in range(height - size + 1):
            for j in range(width - size + 1):
                x = a[i : i + size, j : j + size, c].astype(np.float64)
                y = b[i : i + size, j : j + size, c].astype(np.float64)
                mx, my = np.sum(weights * x), np.sum(weights * y)
                vx = np.sum(weights * (x - mx) ** 2)
                vy = np.sum(weights * (y - my) ** 2)
                cov = np.sum(weights * (x - mx) * (y - my))
                top = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
                bottom = (mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2)
                values.append(top / bottom)
    return np.mean(values)


def frame_reference(a, b):
    error = a.astype(np.float64) - b
    mse = sum(e * e for e in error.ravel())
    return {
        "mse": mse,
        "mae": sum(abs(e) for e in error.ravel()),
        "psnr": min(100.0, 10 * np.log10(error.size / mse)) if mse else 100.0,
        "ssim": ssim_reference(a, b),
    }


def loss_reference(outputs, true, loss):
    """The loss of one example [P, H, W, C] in float64."""
    x, t = np.float64(outputs), np.float64(true)
    if loss == "mse":
        return np.mean((x - t) ** 2)
    if loss == "bce":
        return -np.mean(t * -np.log1p(np.exp(-x)) + (1 - t) * -np.log1p(np.exp(x)))
    l1 = np.mean(np.abs(x - t))
    if loss == "l1":
        return l1
    similar = np.mean([ssim_reference(a, b) for a, b in zip(x, t, strict=True)])
    return 0.84 * (1 - similar) + 0.16 * l1


# variances are differences of float32 means near 1, against C2 = 9e-4
SIMILAR = dict(rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_over_all_frames_and_metrics_over_the_horizon(loss):
    targets, mask = clips(), [1, 0, 1]
    outputs = guesses(targets, 4)
    task = forecasting(2, loss=loss)
    assert isinstance(task, Task)
    assert (task.name, task.outputs) == ("forecasting", 2)
    assert (task.monitor, task.mode) == ("mse", "min")
    with jax.numpy_dtype_promotion("strict"):
        total, count = jax.jit(task.loss)(jnp.asarray(outputs), batch(targets, mask))
        metrics = jax.jit(task.metrics)(jnp.asarray(outputs), batch(targets, mask))
        predictions = np.asarray(task.predict(jnp.asarray(outputs)))
    true = targets / np.float32(255)
    wanted = [loss_reference(outputs[k], true[k, -4:], loss) for k in (0, 2)]
    np.testing.assert_allclose((total, count), (sum(wanted), 2), **SIMILAR)

    last = outputs[:, -2:]
    clipped = 1 / (1 + np.exp(-last)) if loss == "bce" else np.clip(last, 0, 1)
    np.testing.assert_allclose(predictions, clipped, rtol=1e-6)  # float32
    assert predictions.dtype == np.float32 and predictions.shape == (3, 2, 16, 14, 1)
    scored = last if loss == "bce" else clipped
    wanted = [loss_reference(scored[k], true[k, -2:], loss) for k in (0, 2)]
    np.testing.assert_allclose(metrics["loss"], (sum(wanted), 2), **SIMILAR)
    rows = [
        [frame_reference(clipped[k, t], true[k, t - 2]) for t in range(2)]
        for k in (0, 2)
    ]
    for name in ("mse", "mae", "psnr", "ssim"):
        each = [np.mean([row[name] for row in frames]) for frames in rows]
        np.testing.assert_allclose(metrics[name], (sum(each), 2), **SIMILAR)
    assert set(metrics) == {"loss", "mse", "mae", "psnr", "ssim"}
    assert all(v.dtype == jnp.float32 for pair in metrics.values() for v in pair)


@pytest.mark.parametrize("loss", ["l1", "bce", "ssim"])
def test_bfloat16_outputs_and_float_targets(loss):
    targets = clips()
    task = forecasting(2, loss=loss)
    outputs = jnp.asarray(guesses(targets, 2), jnp.bfloat16)
    as_float = batch(np.float32(targets) / np.float32(255))
    metrics = jax.jit(task.metrics)
    wanted = metrics(outputs.astype(jnp.float32), batch(targets))
    for name, pair in metrics(outputs, as_float).items():
        np.testing.assert_allclose(pair, wanted[name], rtol=1e-6)  # the same numbers
    gradient = jax.jit(jax.grad(lambda x: task.loss(x, batch(targets))[0]))(outputs)
    assert gradient.dtype == jnp.bfloat16
    assert np.isfinite(np.float32(gradient)).all() and np.any(gradient != 0)


@pytest.mark.parametrize("loss", ["bce", "ssim"])
def test_a_masked_clip_changes_nothing_even_if_it_is_nan(loss):
    targets = clips()
    task = forecasting(2, loss=loss)
    outputs = guesses(targets, 3)
    broken = outputs.copy()
    broken[1] = np.nan
    mask = [1, 0, 1]
    for f in (jax.jit(task.loss), jax.jit(lambda *a: task.metrics(*a)["ssim"])):
        np.testing.assert_array_equal(
            f(jnp.asarray(broken), batch(targets, mask)),
            f(jnp.asarray(outputs), batch(targets, mask)),
        )


@pytest.mark.parametrize("shape", [(16, 14, 1), (11, 30, 3), (8, 7, 2), (1, 1, 1)])
def test_ssim_equals_loops(shape):
    rng = np.random.default_rng(0)
    a, b = np.float32(rng.random((2, *shape)))
    for x, y in ((a, b), (a, a), (a, 1 - a), (0 * a, b), (a, 0.9 * a)):
        got = jax.jit(ssim)(x, y)
        np.testing.assert_allclose(got, ssim_reference(x, y), **SIMILAR)


@pytest.mark.parametrize("shape", [(64, 64, 1), (24, 31, 3)])
def test_scores_equal_scikit_image(shape):
    metrics = pytest.importorskip("skimage.metrics")
    frames = clips(2, 4, shape[:2], shape[2]) / np.float32(255)
    for k, (a, b) in enumerate([(0, 1), (1, 2), (2, 3)]):
        true, noisy = frames[0, a], np.clip(frames[0, a] + 0.1 * frames[1, b], 0, 1)
        guess = noisy if k else frames[1, b]
        got = jax.jit(frame_scores)(guess, true)
        similarity = metrics.structural_similarity(
            true.astype(np.float64),
            guess.astype(np.float64),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1,
        )
        psnr = metrics.peak_signal_noise_ratio(true, guess, data_range=1.0)
        np.testing.assert_allclose(got["ssim"], similarity, **SIMILAR)
        np.testing.assert_allclose(got["psnr"], psnr, rtol=1e-5)  # a float32 logarithm


def test_a_perfect_frame():
    x = jnp.asarray(clips(1, 1)[0, 0] / np.float32(255))
    scores = jax.jit(frame_scores)(x, x)
    assert (scores["mse"], scores["mae"], scores["psnr"]) == (0, 0, 100)
    np.testing.assert_allclose(scores["ssim"], 1, rtol=1e-6)  # float32


def report_reference(predictions, clip, horizon, threshold):
    true = clip[:, -horizon:] / np.float32(255)
    rows = [
        [frame_reference(p, t) for p, t in zip(*pair, strict=True)]
        for pair in zip(predictions, true, strict=True)
    ]
    hits = misses = alarms = 0
    for p, t in zip(predictions.ravel(), true.ravel(), strict=True):
        hits += p >= threshold and t >= threshold
        misses += p < threshold and t >= threshold
        alarms += p >= threshold and t < threshold
    return rows, hits, misses, alarms


@pytest.mark.parametrize("loss, chunk", [("l1", 1), ("ssim", 2**18)])
def test_report_equals_loops(loss, chunk, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["lstm_jax.tasks.forecasting"], "CHUNK", chunk)
    targets = clips(3, 5, (13, 12))
    task = forecasting(2, loss=loss)
    predictions = np.asarray(task.predict(jnp.asarray(guesses(targets, 3))))
    report = task.report(predictions, targets)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["task"], report["examples"], report["horizon"]) == (
        "forecasting",
        3,
        2,
    )
    seen = targets[:, :3] / np.float32(255)
    references = {
        "copy last frame": np.repeat(seen[:, -1:], 2, 1),
        "mean frame": np.repeat(seen.mean(1, keepdims=True), 2, 1),
        "all zeros": np.zeros_like(predictions),
    }
    assert list(report["references"]) == list(references)
    for got, frames in [(report, predictions)] + [
        (report["references"][name], frames) for name, frames in references.items()
    ]:
        rows, hits, misses, alarms = report_reference(frames, targets, 2, 0.5)
        for name in ("mse", "mae", "psnr", "ssim"):
            each = np.array([[row[name] for row in clip] for clip in rows])
            np.testing.assert_allclose(got[name], each.mean(), **SIMILAR)
            per_frame = [row[name] for row in got["per_frame"]]
            np.testing.assert_allclose(per_frame, each.mean(0), **SIMILAR)
        assert got["mse_per_pixel"] == pytest.approx(got["mse"] / (13 * 12))
        assert got["mae_per_pixel"] == pytest.approx(got["mae"] / (13 * 12))
        assert got["csi"] == pytest.approx(hits / (hits + misses + alarms))
        assert got["pod"] == pytest.approx(hits / (hits + misses))
        if hits + alarms:
            assert got["far"] == pytest.approx(alarms / (hits + alarms))
    assert report["references"]["all zeros"]["far"] is None
    metrics = jax.jit(task.metrics)(jnp.asarray(predictions), batch(targets))
    for name, (total, count) in metrics.items():
        assert report[name] == pytest.approx(float(total / count), rel=1e-5)


def test_report_of_darkness_and_of_logits():
    dark = np.zeros((2, 3, 12, 12, 1), np.uint8)
    report = forecasting(1, loss="bce").report(np.float32(dark[:, :1]), dark)
    assert (report["csi"], report["pod"], report["far"]) == (None, None, None)
    assert report["loss"] is None
    assert (report["mse"], report["psnr"]) == (0, 100)
    json.dumps(report, allow_nan=False)


def test_report_reads_memory_maps_and_floats(tmp_path):
    targets = clips()
    task = forecasting(2)
    predictions = np.clip(guesses(targets, 2), 0, 1)
    for name, array in (("p", predictions), ("t", targets)):
        np.save(tmp_path / f"{name}.npy", array)
    p, t = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "pt")
    wanted = task.report(predictions, targets)
    assert task.report(p, t) == wanted
    floats = task.report(predictions, targets / np.float32(255))
    assert floats["mse"] == pytest.approx(wanted["mse"], rel=1e-6)
    assert floats["csi"] == wanted["csi"]


GOOD = np.zeros((2, 2, 12, 12, 1), np.float32)
CLIPS = np.zeros((2, 4, 12, 12, 1), np.uint8)


@pytest.mark.parametrize(
    "predictions, targets, message",
    [
        (GOOD[:, :1], CLIPS, r"\(2, 1, 12, 12, 1\).*expected \(2, 2, 12, 12, 1\)"),
        (GOOD[:0], CLIPS[:0], "N >= 1"),
        (GOOD, CLIPS.astype(np.int32), "dtype int32, expected clips"),
        (GOOD, CLIPS[:, :2], "2 frames, expected more than the horizon of 2"),
        (
            GOOD + np.float32(1.5),
            CLIPS,
            "not in .0, 1.; pass outputs through task.predict",
        ),
        (GOOD, CLIPS + np.float32(200), "not in .0, 1.*divide by 255"),
        (GOOD * np.nan, CLIPS, "2 of 2 predictions or targets hold NaN.*learning rate"),
    ],
)
@pytest.mark.parametrize("call", ["report", "figures"])
def test_refused_reports(call, predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        getattr(forecasting(2), call)(predictions, targets)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(horizon=0), "horizon=0, expected 1"),
        (dict(horizon=1, loss="huber"), 'loss="huber", expected one of'),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        forecasting(**arguments)


@pytest.mark.parametrize(
    "outputs, targets, mask, message",
    [
        (GOOD[:, :1], CLIPS, [1, 1], "2 <= P < T"),
        (CLIPS / np.float32(1), CLIPS, [1, 1], "2 <= P < T"),
        (GOOD[0], CLIPS, [1, 1], r"outputs have shape \(2, 12, 12, 1\)"),
        (GOOD[..., :6, :], CLIPS, [1, 1], r"\(2, 2, 12, 6, 1\) for targets"),
        (GOOD, CLIPS, [1, 1, 1], r"mask has shape \(3,\), expected \(2,\)"),
    ],
)
def test_refused_shapes_inside_the_step(outputs, targets, mask, message):
    task = forecasting(2)
    for f in (task.loss, task.metrics):
        with pytest.raises(ValueError, match=message):
            f(jnp.asarray(outputs), batch(targets, mask))


@pytest.mark.parametrize(
    "n, channels, t", [slow(5, 1, 6), (2, 3, 6), slow(1, 2, 3), (3, 1, 45)]
)
@pytest.mark.filterwarnings("error")
def test_figures(n, channels, t):
    targets = clips(n, t, (12, 16), channels)
    horizon = t - 2
    predictions = np.clip(guesses(targets, horizon), 0, 1)
    figures = forecasting(horizon).figures(predictions, targets)
    assert set(figures) == {"strip", "error_over_time"}
    for figure in figures.values():
        figure.canvas.draw()
    errors = np.sum((predictions - targets[:, 2:] / 255.0) ** 2, (2, 3, 4))
    ax = figures["error_over_time"].axes[0]
    network = next(line for line in ax.lines if "network" in line.get_label())
    np.testing.assert_array_equal(network.get_xdata(), np.arange(3, t + 1))
    np.testing.assert_allclose(network.get_ydata(), errors.mean(0), rtol=1e-5)
    assert len(ax.lines) == 4

    ax = figures["strip"].axes[0]
    words = [text.get_text() for text in ax.texts]
    order = np.argsort(errors.mean(1))
    for name, k in (("smallest", order[0]), ("largest", order[-1])):
        wanted = f"{name} error: {errors[k].mean():.3g} per frame"
        assert (wanted in words) is (n > 1)
    numbers = [int(word) for word in words if word.isdigit()]
    step = 1 if t <= 20 else 3
    assert numbers == [*range(2, 0, -step)][::-1] + [*range(3, t + 1, step)]
    pictures = [np.asarray(image.get_array()) for image in ax.images]
    after = len(numbers) - (2 if step == 1 else 1)
    assert len(pictures) == min(n, 3) * (len(numbers) + after)
    best = to_uint8(targets[order[0]][numbers[0] - 1] / np.float32(255))
    np.testing.assert_array_equal(pictures[0], best)
    last = to_uint8(predictions[order[-1]][numbers[-1] - 3])
    np.testing.assert_array_equal(pictures[-1], last)


@pytest.mark.parametrize("channels", [1, 3])
def test_film(channels):
    from PIL import Image

    x = clips(1, 5, (6, 8), channels)[0]
    predicted = np.float32(x[3:]) / 255 * 0.5
    film = Image.open(io.BytesIO(forecast_gif(x[:3], x[3:], predicted, scale=4, ms=50)))
    assert film.n_frames == 5 and film.info["loop"] == 0
    assert film.size == (2 * (8 * 4 + 2 * 4) + 8, 6 * 4 + 2 * 4)
    grey, orange = (154, 163, 173), (213, 94, 0)
    for k in range(5):
        film.seek(k)
        assert film.info["duration"] == (300 if k == 4 else 50)
        page = np.asarray(film.convert("RGB"))
        left, space, right = page[:, :40], page[:, 40:48], page[:, 48:]
        assert (space == 255).all()
        assert tuple(left[0, 0]) == grey
        assert tuple(right[-1, -1]) == (grey if k < 3 else orange)
        for side, frame in (
            (left, x[k]),
            (right, x[k] if k < 3 else to_uint8(predicted[k - 3])),
        ):
            inner = side[4:-4, 4:-4]
            blocks = inner.reshape(6, 4, 8, 4, 3)
            assert (blocks == blocks[:, :1, :, :1]).all()
            # 253 levels of grey; a palette holds the few colours of a small frame
            small = blocks[:, 0, :, 0].astype(int)
            wanted = np.broadcast_to(frame.reshape(6, 8, -1), small.shape)
            assert np.abs(small - wanted).max() <= 1


def test_refused_films():
    x = clips(1, 4)[0]
    with pytest.raises(ValueError, match=r"inputs \(2, 16, 14, 1\), true \(2, 16"):
        forecast_gif(x[:2], x[2:], x[3:])
    with pytest.raises(ValueError, match="scale=0 and ms=120"):
        forecast_gif(x[:2], x[2:], x[2:], scale=0)
    assert forecast_gif(x[:0], x[2:], x[2:])[:6] == b"GIF89a"
    from PIL import Image

    alone = Image.open(io.BytesIO(forecast_gif(x[:2], None, x[2:])))
    both = Image.open(io.BytesIO(forecast_gif(x[:2], x[2:], x[2:])))
    assert alone.n_frames == both.n_frames and 2 * alone.width < both.width
