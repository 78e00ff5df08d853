"""Regression against NumPy, in the network's unit and in the target's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.tasks import regression


def case(n=6, width=2, seed=0):
    rng = np.random.default_rng(seed)
    z = np.float32(rng.normal(size=(n, width)))
    targets = np.float32(10 + 5 * rng.normal(size=(n, width)))
    return z, targets


def batch(targets, mask=None):
    mask = np.ones(len(targets), np.float32) if mask is None else np.float32(mask)
    return {"targets": jnp.asarray(targets), "mask": jnp.asarray(mask)}


def huber(e, delta):
    return np.where(np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2))


@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("scale", [5.0, (5.0, 2.0)])
def test_loss_is_standardised_and_mae_is_not(loss, scale):
    z, targets = case()
    mask = [1, 1, 0, 1, 1, 0]
    task = regression(2, loss=loss, offset=10.0, scale=scale)
    assert (task.outputs, task.monitor, task.mode) == (2, "mae", "min")
    with jax.numpy_dtype_promotion("strict"):
        total, count = jax.jit(task.loss)(jnp.asarray(z), batch(targets, mask))
        metrics = jax.jit(task.metrics)(jnp.asarray(z), batch(targets, mask))
    e = z.astype(np.float64) - (targets - 10) / np.array(scale)
    each = e**2 if loss == "mse" else huber(e, 1.0)
    expected = np.sum(each.mean(-1) * mask)
    np.testing.assert_allclose((total, count), (expected, 4), rtol=1e-5)  # float32
    np.testing.assert_allclose(metrics["loss"], (expected, 4), rtol=1e-5)
    mae = np.sum(np.abs(e * np.array(scale)).mean(-1) * mask)
    np.testing.assert_allclose(metrics["mae"], (mae, 4), rtol=1e-5)
    np.testing.assert_allclose(
        task.predict(jnp.asarray(z)), z * np.array(scale) + 10, rtol=1e-5
    )
    report = task.report(np.asarray(task.predict(jnp.asarray(z))), targets)
    assert report["loss"] == pytest.approx(each.mean(), rel=1e-5)


def test_gradient_of_the_mean_square():
    z, targets = case()
    task = regression(2, offset=10.0, scale=5.0)
    gradient = jax.grad(lambda z: task.loss(z, batch(targets))[0])(jnp.asarray(z))
    # 2 e, over the mean of two outputs
    np.testing.assert_allclose(gradient, z - (targets - 10) / 5, rtol=1e-4, atol=1e-6)


def test_bfloat16_outputs_are_scored_in_float32():
    z, targets = case()
    z = jnp.asarray(z, jnp.bfloat16)
    task = regression(2)
    wanted = task.metrics(z.astype(jnp.float32), batch(targets))
    got = task.metrics(z, batch(targets))
    np.testing.assert_array_equal(got["mae"], wanted["mae"])
    assert got["mae"][0].dtype == jnp.float32


def test_report_by_hand():
    targets = np.array([[0.0], [2.0], [4.0]])
    report = regression(unit="degrees").report(targets + [[1], [1], [-2]], targets)
    assert report["mae"] == pytest.approx(4 / 3)
    assert report["rmse"] == pytest.approx(np.sqrt(2))
    assert report["r2"] == pytest.approx(1 - 6 / 8)
    assert report["bias"] == pytest.approx(0)
    assert report["unit"] == "degrees" and report["examples"] == 3
    assert report["per_output"][0]["rmse"] == report["rmse"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.filterwarnings("error")
def test_r2_is_none_where_targets_never_change():
    targets = np.array([[1.0, 0.0], [1.0, 1.0]])
    report = regression(2).report(targets, targets)
    assert [row["r2"] for row in report["per_output"]] == [None, 1.0]
    assert report["r2"] == 1.0
    one = regression(2).report(targets[:1], targets[:1])
    assert one["r2"] is None and one["mae"] == 0.0
    figures = regression(2).figures(targets[:1], targets[:1])
    for figure in figures.values():
        figure.canvas.draw()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(outputs=0), "outputs=0, expected 1"),
        (dict(loss="mae"), 'loss="mae", expected "mse" or "huber"'),
        (dict(scale=0.0), r"scale=\[0.0\], expected positive.*use 1"),
        (dict(scale=float("nan")), r"scale has shape \(\), expected one finite"),
        (dict(outputs=2, offset=(1, 2, 3)), r"offset has shape \(3,\).*\[2\]"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        regression(**arguments)


def test_targets_that_would_broadcast_are_refused():
    task = regression(1)
    with pytest.raises(ValueError, match=r"targets \(4,\).*expected targets \(4, 1\)"):
        task.loss(jnp.zeros((4, 1)), batch(np.zeros(4, np.float32)))
    with pytest.raises(ValueError, match=r"targets have shape \(4,\).*\(4, 1\)"):
        task.report(np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(ValueError, match="1 of 2 predictions hold NaN"):
        task.report(np.array([[np.nan], [0]]), np.zeros((2, 1)))
