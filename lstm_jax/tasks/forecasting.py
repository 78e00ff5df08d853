"""Prediction of the next frames of a clip: losses, metrics, skill scores, baselines."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_jax.figures.video_plots import error_over_time, frame_strip
from lstm_jax.metrics.bootstrap import Scores, weighted_means
from lstm_jax.metrics.checks import check_finite
from lstm_jax.metrics.image_similarity import frame_scores, ssim
from lstm_jax.tasks.task import Task, check_mask, masked

LOSSES = ("mse", "l1", "bce", "ssim")
SSIM_SHARE = 0.84  # alpha of the loss that Zhao et al. 2017 call Mix
THRESHOLD = 0.5  # a pixel at or above it is an event for CSI, POD and FAR
REFERENCES = ("copy last frame", "mean frame", "all zeros")
CHUNK = 2**18  # pixels of predicted frames scored at once; fits a CPU cache


def forecasting(horizon: int, *, loss: str = "mse") -> Task:
    """Predicts the last frames of a clip from the frames before them.

    mse: e^2.  l1: |e|.  bce: cross-entropy of a sigmoid.
    ssim: 0.84 (1 - SSIM) + 0.16 |e|.
    with e = output - true and pixels in [0, 1]; the loss is the mean over pixels and
    over all P frames that the network predicts.

    The metrics, including "loss", are computed on the last `horizon` frames, clipped to
    [0, 1]. "mse" and "mae" are sums over the pixels and channels of a frame, as in the
    literature on moving digits; "psnr" is in decibels; all are means over frames.

    Args:
      horizon: number of frames that are scored, at least 1.
      loss: "mse" | "l1" | "bce" | "ssim"; for "bce" the outputs are logits.

    Returns:
      A Task; targets are whole clips [B, T, H, W, C], uint8 or float in [0, 1];
      outputs are the last P frames, [B, P, H, W, C] with horizon <= P < T;
      predictions are [B, horizon, H, W, C] in [0, 1]. `outputs` is the horizon.

    Raises:
      ValueError: an unknown loss, or `horizon` out of range.

    Reference: Shi et al. 2015, Convolutional LSTM Network, section 4.2 (the skill
    scores); Tan et al. 2023, OpenSTL (sums over a frame); Zhao et al. 2017, Loss
    Functions for Image Restoration with Neural Networks, the loss called Mix.
    Departs: SSIM has one scale instead of five, and |e| has no Gaussian weights.
    """
    if horizon < 1:
        raise ValueError(f"forecasting: horizon={horizon}, expected 1 or more frames")
    if loss not in LOSSES:
        raise ValueError(f'forecasting: loss="{loss}", expected one of {LOSSES}')

    def check(outputs, batch):
        targets, mask = batch["targets"], batch["mask"]
        _check_clips(targets, horizon)
        frames = outputs.shape[1] if outputs.ndim == 5 else 0
        wanted = (len(targets), frames, *targets.shape[2:])
        if outputs.shape != wanted or not horizon <= frames < targets.shape[1]:
            raise ValueError(
                f"forecasting: outputs have shape {outputs.shape} for targets "
                f"{targets.shape}; expected [B, P, H, W, C], the last P frames of the "
                f"clip, with {horizon} <= P < T"
            )
        check_mask("forecasting", mask, targets)
        return outputs.astype(jnp.float32), _pixels(targets[:, -frames:])

    def error(outputs, true):  # [B]
        if loss == "bce":
            values = optax.sigmoid_binary_cross_entropy(outputs, true)
        elif loss == "mse":
            values = optax.squared_error(outputs, true)
        else:
            values = jnp.abs(outputs - true)
        values = jnp.mean(values, (1, 2, 3, 4))
        return values if loss != "ssim" else _mix(values, ssim(outputs, true).mean(1))

    def loss_of(outputs, batch):
        return masked(error(*check(outputs, batch)), batch["mask"])

    def metrics(outputs, batch):
        outputs, true = check(outputs, batch)
        frames, true = predict(outputs), true[:, -horizon:]
        scored = outputs[:, -horizon:] if loss == "bce" else frames
        values = {"loss": error(scored, true)}
        for name, score in frame_scores(frames, true).items():
            values[name] = jnp.mean(score, 1)
        return {name: masked(value, batch["mask"]) for name, value in values.items()}

    def predict(outputs):
        frames = outputs[:, -horizon:].astype(jnp.float32)
        return jax.nn.sigmoid(frames) if loss == "bce" else jnp.clip(frames, 0, 1)

    def report(predictions, targets):
        scores = _score(predictions, targets, horizon)
        pixels = math.prod(targets.shape[2:])
        rows = {name: _summary(score, pixels) for name, score in scores.items()}
        network = rows.pop("network")
        value = {
            "mse": network["mse_per_pixel"],
            "l1": network["mae_per_pixel"],
            "bce": None,  # float32 probabilities of 0 and 1 lose their logits
            "ssim": _mix(network["mae_per_pixel"], network["ssim"]),
        }[loss]
        return {
            "task": "forecasting",
            "examples": len(targets),
            "horizon": horizon,
            "threshold": THRESHOLD,
            "loss": value,
            **network,
            "references": rows,
        }

    def figures(predictions, targets):
        scores = _score(predictions, targets, horizon, similarity=False)
        errors = scores["network"]["mse"].mean(1)
        clips = [
            (
                f"{word}: {errors[k]:.3g} per frame",
                _pixels(np.asarray(targets[k])),
                _pixels(np.asarray(predictions[k])),
            )
            for word, k in _examples(errors)
        ]
        means = {name: score["mse"].mean(0) for name, score in scores.items()}
        first = targets.shape[1] - horizon + 1
        return {
            "strip": frame_strip(clips, total=len(targets)),
            "error_over_time": error_over_time(means, first=first),
        }

    return Task(
        name="forecasting",
        outputs=horizon,
        loss=loss_of,
        metrics=metrics,
        predict=predict,
        monitor="mse",
        mode="min",
        report=report,
        figures=figures,
        example_losses=_example_losses,
        weighted_scores=_weighted_scores,
    )


def _mix(absolute, similarity):
    return SSIM_SHARE * (1 - similarity) + (1 - SSIM_SHARE) * absolute


def _pixels(frames):
    """Frames as float32; uint8 becomes [0, 1]. NumPy in, NumPy out."""
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / np.float32(255)
    return frames.astype(np.float32)


def _check_clips(targets, horizon):
    real = jnp.issubdtype(targets.dtype, jnp.floating)
    if targets.ndim != 5 or not (real or targets.dtype == np.uint8):
        raise ValueError(
            f"forecasting: targets have shape {targets.shape} and dtype "
            f"{targets.dtype}, expected clips [B, T, H, W, C], uint8 or float in [0, 1]"
        )
    if targets.shape[1] <= horizon:
        raise ValueError(
            f"forecasting: clips have {targets.shape[1]} frames, expected more than "
            f"the horizon of {horizon}: the first ones are the network's input"
        )


def _score(predictions, targets, horizon, similarity=True):
    """Scores of the network and of three baselines, in chunks of clips.

    Returns:
      {"network" or a baseline's name: {"mse" | ...: [N, horizon], "events": [3]}};
      events are hits, misses and false alarms over all pixels.
    """
    _check_clips(targets, horizon)
    wanted = (len(targets), horizon, *targets.shape[2:])
    if predictions.shape != wanted or not len(targets):
        raise ValueError(
            f"forecasting: predictions have shape {predictions.shape} for targets "
            f"{targets.shape}; expected {wanted} with N >= 1"
        )
    step = max(1, CHUNK // math.prod(wanted[1:]))
    scored = []
    for start in range(0, len(targets), step):
        part = slice(start, start + step)
        pair = np.asarray(predictions[part]), np.asarray(targets[part])
        scored.append(jax.device_get(_score_chunk(*pair, similarity=similarity)))
    chunks, finite, inside = zip(*scored, strict=True)
    what = "predictions or targets"
    check_finite("forecasting", np.concatenate(finite), what)
    if not all(inside):
        raise ValueError(
            f"forecasting: {what} are not in [0, 1]; pass outputs through task.predict "
            "first, and give targets as uint8 or divide by 255"
        )
    join = {"events": lambda rows: np.sum(np.stack(rows), 0, dtype=np.int64)}
    return {
        name: {
            key: join.get(key, np.concatenate)([chunk[name][key] for chunk in chunks])
            for key in chunks[0][name]
        }
        for name in ("network", *REFERENCES)  # jit returns dicts with sorted keys
    }


@functools.partial(jax.jit, static_argnames="similarity")
def _score_chunk(predictions, clips, *, similarity):
    """Scores of some clips, whether each is finite, and whether all are in [0, 1]."""
    predicted, clips = _pixels(predictions), _pixels(clips)
    first = clips.shape[1] - predicted.shape[1]
    seen, true = clips[:, :first], clips[:, first:]
    frames = {
        "network": predicted,
        "copy last frame": seen[:, -1:],
        "mean frame": jnp.mean(seen, 1, keepdims=True),
        "all zeros": jnp.zeros_like(true[:1, :1]),
    }
    scores = {}
    event = true >= THRESHOLD
    for name, x in frames.items():
        scores[name] = frame_scores(x, true)
        if not similarity:
            del scores[name]["ssim"]
        guess = x >= THRESHOLD
        counts = (guess & event, ~guess & event, guess & ~event)
        scores[name]["events"] = jnp.stack([jnp.sum(jnp.int32(c)) for c in counts])
    axes = (1, 2, 3, 4)
    low = jnp.minimum(predicted.min(axes), clips.min(axes))  # NaN stays NaN
    high = jnp.maximum(predicted.max(axes), clips.max(axes))
    inside = jnp.all((low >= 0) & (high <= 1))
    return scores, jnp.isfinite(low) & jnp.isfinite(high), inside


def _summary(score, pixels):
    """Scores of one predictor as plain numbers; None if a ratio is undefined."""
    names = ("mse", "mae", "psnr", "ssim")
    frames = {name: score[name].mean(0, dtype=np.float64) for name in names}
    mean = {name: float(value.mean()) for name, value in frames.items()}
    hits, misses, alarms = (int(count) for count in score["events"])

    def ratio(part, whole):
        return part / whole if whole else None

    return {
        "mse": mean["mse"],
        "mae": mean["mae"],
        "mse_per_pixel": mean["mse"] / pixels,
        "mae_per_pixel": mean["mae"] / pixels,
        "psnr": mean["psnr"],
        "ssim": mean["ssim"],
        "csi": ratio(hits, hits + misses + alarms),
        "pod": ratio(hits, hits + misses),
        "far": ratio(alarms, hits + alarms),
        "per_frame": [
            {name: float(frames[name][k]) for name in names}
            for k in range(len(frames["mse"]))
        ],
    }


def _example_losses(predictions, targets):
    """Squared error per frame, averaged over the predicted frames of each clip."""
    return _clip_scores(predictions, targets)["mse"]


def _weighted_scores(predictions, targets) -> Scores:
    columns = _clip_scores(predictions, targets)
    return lambda weights: weighted_means(columns, weights)


def _clip_scores(predictions, targets):
    """Scores of each clip, {name: [N]}, averaged over its predicted frames."""
    scores = _score(predictions, targets, predictions.shape[1])["network"]
    del scores["events"]
    return {name: score.mean(1, dtype=np.float64) for name, score in scores.items()}


def _examples(errors):
    """The clips to show: the best, the median and the worst, without repetition."""
    order = np.argsort(errors, kind="stable")
    if len(order) == 1:
        return [("error", 0)]
    words = {order[len(order) // 2]: "median"}
    words |= {order[-1]: "largest", order[0]: "smallest"}
    return [(f"{words[k]} error", int(k)) for k in order if k in words]
