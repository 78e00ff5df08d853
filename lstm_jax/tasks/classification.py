"""One class out of K: cross-entropy, accuracy, ROC and the confusion matrix."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_jax.figures.roc_pr import roc_figure
from lstm_jax.figures.style import figure, safe, text_color
from lstm_jax.metrics.bootstrap import Scores, mean_known, weighted_means
from lstm_jax.metrics.ranking import LARGEST_RANKING, areas, macro_areas
from lstm_jax.tasks.task import (
    Task,
    check_outputs,
    check_predictions,
    checked_names,
    checked_weights,
    masked,
)


def classification(
    classes: Sequence[str],
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
    gamma: float = 0.0,
    top_k: int = 5,
) -> Task:
    """One class out of K, from logits.

    loss = -sum_k q_k (1 - p_k)^gamma log p_k, with p = softmax(outputs),
    q = (1 - a) one_hot(target) + a / K and a = `label_smoothing`: the cross-entropy, or
    with gamma > 0 the focal loss; its mean is weighted by the target's class weight.
    The metric "loss" has none of this, so that runs with different losses, and training
    and validation, compare.

    Args:
      classes: the K names, in the order of the class indices.
      label_smoothing: a, in [0, 1).
      class_weights: [K], positive, such as `balanced_class_weights`; () for equal ones.
      gamma: 0 or more; 2 is usual for a focal loss.
      top_k: with K > top_k, the metric "top{top_k}_accuracy" is reported as well.

    Returns:
      A Task; targets are int [B], predictions are probabilities [B, K].

    Raises:
      ValueError: fewer than two classes, a name twice, a number out of its range.

    Reference: Szegedy et al. 2016, Rethinking the Inception Architecture, section 7;
    Lin et al. 2017, Focal Loss for Dense Object Detection, equation 4.
    """
    classes = checked_names("classification", "classes", classes, 2)
    width = len(classes)
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"classification: label_smoothing={label_smoothing} is not in [0, 1); "
            "0.1 is usual, 0 turns it off"
        )
    if gamma < 0:
        raise ValueError(f"classification: gamma={gamma}, wanted 0 or more")
    weights = checked_weights("classification", class_weights, (width,))
    if top_k < 1:
        raise ValueError(f"classification: top_k={top_k}, wanted 1 or more")
    top_name = f"top{top_k}_accuracy" if width > top_k else None

    def check(outputs, batch):
        check_outputs("classification", outputs, batch, width=width, targets_ndim=1)
        return outputs.astype(jnp.float32)

    def loss(outputs, batch):
        logits = check(outputs, batch)
        targets, mask = batch["targets"], batch["mask"]
        if weights is not None:
            mask = mask * jnp.asarray(weights)[targets]
        labels = jax.nn.one_hot(targets, width, dtype=jnp.float32)
        if label_smoothing:
            labels = optax.smooth_labels(labels, label_smoothing)
        if gamma:
            return masked(_focal_losses(logits, labels, gamma), mask)
        if label_smoothing:
            return masked(optax.softmax_cross_entropy(logits, labels), mask)
        values = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return masked(values, mask)

    def metrics(outputs, batch):
        logits = check(outputs, batch)
        targets, mask = batch["targets"], batch["mask"]
        values = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        result = {
            "loss": masked(values, mask),
            "accuracy": masked(jnp.argmax(logits, -1) == targets, mask),
        }
        if top_name:
            _, best = jax.lax.top_k(logits, top_k)  # [B, top_k]
            hits = jnp.any(best == targets[:, None], -1)
            result[top_name] = masked(hits, mask)
        return result

    def predict(outputs):
        return jax.nn.softmax(outputs.astype(jnp.float32), -1)

    def report(predictions, targets):
        predictions, targets = _check(predictions, targets, classes)
        return _report(predictions, targets, classes, top_k, top_name)

    def weighted_scores(predictions, targets):
        return _weighted_scores(predictions, targets, top_k, top_name)

    def figures(predictions, targets):
        predictions, targets = _check(predictions, targets, classes)
        return {
            "confusion_matrix": _confusion_figure(predictions, targets, classes),
            "roc": roc_figure(one_against_rest(predictions, targets), classes),
        }

    return Task(
        name="classification",
        outputs=width,
        loss=loss,
        metrics=metrics,
        predict=predict,
        monitor="accuracy",
        mode="max",
        report=report,
        figures=figures,
        example_losses=_example_losses,
        weighted_scores=weighted_scores,
    )


def balanced_class_weights(targets, width: int) -> np.ndarray:
    """Weights [K] under which all classes count alike: n / (K n_k).

    K are the classes that occur; one that does not has weight 1.

    Args:
      targets: class indices [N]; negative ones are unknown and do not count.
      width: of the result.
    """
    targets = np.asarray(targets)
    counts = np.bincount(targets[targets >= 0], minlength=width)
    occur = np.count_nonzero(counts)
    weights = counts.sum() / (occur * np.maximum(counts, 1))
    return np.where(counts, weights, 1.0)


def _focal_losses(logits, labels, gamma):
    """Of each example; labels [B, K] are a distribution."""
    log_p = jax.nn.log_softmax(logits, -1)
    wrong = jnp.maximum(-jnp.expm1(log_p), np.finfo(np.float32).tiny)
    return -(labels * wrong**gamma * log_p).sum(-1)


def _check(predictions, targets, classes):
    """Probabilities [N, K] and class indices [N], or a ValueError."""
    width = len(classes)
    predictions, targets = check_predictions(
        "classification", predictions, targets, width=width
    )
    if predictions.min() < 0 or np.abs(predictions.sum(-1) - 1).max() > 1e-2:
        raise ValueError(
            "classification: predictions are not probabilities (rows of numbers >= 0 "
            "that sum to 1); pass the outputs through task.predict first"
        )
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise ValueError(
            f"classification: targets have shape {targets.shape} and dtype "
            f"{targets.dtype}, wanted integers [N]"
        )
    if targets.min() < 0 or targets.max() >= width:
        raise ValueError(
            f"classification: targets run from {targets.min()} to {targets.max()}, "
            f"wanted 0 to {width - 1} for {width} classes"
        )
    return predictions, targets


def _report(predictions, targets, classes, top_k, top_name):
    """Everything a test set says, as plain numbers; None where it says nothing."""
    from scipy.special import xlogy  # scikit-learn's; NumPy's log may round otherwise
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    labels = np.arange(len(classes))
    chosen = predictions.argmax(-1)
    p_true = predictions[np.arange(len(targets)), targets]
    scores = precision_recall_fscore_support(
        targets, chosen, labels=labels, zero_division=0
    )
    aucs = [_auc(predictions, targets, k) for k in labels]
    known = [auc for auc in aucs if auc is not None]
    result = {
        "task": "classification",
        "examples": len(targets),
        "accuracy": float(np.mean(chosen == targets)),
        "balanced_accuracy": float(np.mean(scores[1][scores[3] > 0])),
        # a probability that underflowed counts as the smallest float32, about 87 nats
        "loss": float(-xlogy(1.0, p_true.clip(np.finfo(np.float32).tiny)).mean()),
    }
    if top_name:
        result[top_name] = float(np.mean(_in_top(predictions, targets, top_k)))
    names = ("precision", "recall", "f1")
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(
            targets, chosen, labels=labels, average=average, zero_division=0
        )
        result[average] = {
            name: float(value) for name, value in zip(names, values[:3], strict=True)
        }
    result["macro"]["roc_auc"] = float(np.mean(known)) if known else None
    result["per_class"] = [
        {
            "name": classes[k],
            **{name: float(scores[i][k]) for i, name in enumerate(names)},
            "support": int(scores[3][k]),
            "roc_auc": aucs[k],
        }
        for k in labels
    ]
    result["classes"] = list(classes)
    matrix = confusion_matrix(targets, chosen, labels=labels)
    result["confusion_matrix"] = matrix.tolist()  # rows are the true classes
    return result


def one_against_rest(predictions, targets) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class, scores [N] of the examples and whether they belong to it [N].

    Args:
      predictions: probabilities [N, K].
      targets: class indices [N].
    """
    predictions, targets = np.asarray(predictions, np.float64), np.asarray(targets)
    return [(predictions[:, k], targets == k) for k in range(predictions.shape[1])]


def _in_top(predictions, targets, k):
    """Whether the target of each example is among the k likeliest classes."""
    # stable, so that ties go to the lower class, as in the compiled metric
    best = np.argsort(-predictions, -1, kind="stable")[:, :k]
    return (best == targets[:, None]).any(-1)


def _example_losses(predictions, targets):
    """The cross-entropy of each example."""
    p_true = np.float64(predictions)[np.arange(len(targets)), targets]
    return -np.log(p_true.clip(np.finfo(np.float32).tiny))


def _weighted_scores(predictions, targets, top_k, top_name) -> Scores:
    """As of a report, with "brier" and "macro.average_precision"."""
    predictions = np.float64(predictions)
    chosen, width = predictions.argmax(-1), predictions.shape[1]
    truth, answers = _one_hot(targets, width), _one_hot(chosen, width)
    right = chosen == targets
    columns = {"accuracy": right, "loss": _example_losses(predictions, targets)}
    if top_name:
        columns[top_name] = _in_top(predictions, targets, top_k)
    p_true = predictions[np.arange(len(targets)), targets]
    columns["brier"] = (predictions**2).sum(-1) - 2 * p_true + 1

    def scores(weights):
        result = weighted_means(columns, weights)
        hits = (weights * right) @ truth  # [R, K]
        support = weights @ truth
        both = support + weights @ answers
        recall = np.where(support > 0, hits / np.maximum(support, 1), np.nan)
        result["balanced_accuracy"] = mean_known(recall.T)
        result["macro.f1"] = (2 * hits / np.maximum(both, 1)).mean(-1)
        if len(targets) * width <= LARGEST_RANKING:
            pairs = one_against_rest(predictions, targets)
            result |= macro_areas([areas(*pair, weights) for pair in pairs])
        return result

    return scores


def _one_hot(indices, width):
    from scipy.sparse import csr_array

    rows = np.arange(len(indices))
    ones = np.ones(len(indices))
    return csr_array((ones, (rows, indices)), shape=(len(indices), width))


def _auc(predictions, targets, k):
    """ROC AUC of class k against the rest; None with only one of the two present."""
    from sklearn.metrics import roc_auc_score

    positive = targets == k
    if positive.all() or not positive.any():
        return None
    return float(roc_auc_score(positive, predictions[:, k]))


def _confusion_figure(predictions, targets, classes):
    """Rows are the true classes; colour is the share of the row, numbers are counts.

    Counts of 0 are left out; above 40 classes colours alone are legible.
    """
    from matplotlib.colors import PowerNorm
    from sklearn.metrics import confusion_matrix

    width = len(classes)
    chosen = predictions.argmax(-1)
    counts = confusion_matrix(targets, chosen, labels=np.arange(width))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(3.2 + 0.48 * width, 5.2, 11.5))
    fig = figure(side + 1.6, side + 0.2)
    ax = fig.add_subplot()
    # the square root of the share: a mistake of 2 % is seen beside a diagonal of 98 %
    image = ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    every = int(np.ceil(width / 40))
    ticks = np.arange(0, width, every)
    names = [safe(classes[k], 16) for k in ticks]
    size = 10 if width <= 20 else 8
    turned = max(map(len, names)) > (4 if width <= 12 else 2)
    ax.set_xticks(
        ticks,
        names,
        fontsize=size,
        rotation=(90 if width > 20 else 45) if turned else 0,
        ha="right" if turned and width <= 20 else "center",
        rotation_mode="anchor" if turned and width <= 20 else "default",
    )
    ax.set_yticks(ticks, names, fontsize=size)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    right = int(np.trace(counts))
    ax.set_title(
        f"Confusion matrix: {right:,} of {len(targets):,} right "
        f"({100 * right / len(targets):.1f} %)"
    )
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if width <= 40:
        ax.set_xticks(np.arange(1, width) - 0.5, minor=True)
        ax.set_yticks(np.arange(1, width) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1.2 if width <= 20 else 0.5)
        ax.tick_params(which="minor", length=0)
        cell = 72 * side / (width + 2)  # points, less where names are long
        size = float(np.clip(1.1 * cell / max(len(str(counts.max())), 2), 5, 11))
        for row, column in np.argwhere(counts):
            color = text_color(image.cmap(image.norm(shares[row, column])))
            style = dict(ha="center", va="center", color=color, fontsize=size)
            ax.text(column, row, str(counts[row, column]), **style)
    bar = fig.colorbar(image, ax=ax, fraction=0.045, pad=0.03)
    bar.set_ticks([0, 0.05, 0.25, 0.5, 1], labels=["0", "5 %", "25 %", "50 %", "100 %"])
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return fig
