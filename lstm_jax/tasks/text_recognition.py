"""Text recognition of lines: CTC, character error rate, confusions."""

from collections import Counter
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lstm_jax.figures.text import confusion_figure
from lstm_jax.metrics.bootstrap import Scores
from lstm_jax.metrics.checks import check_finite
from lstm_jax.metrics.ctc import (
    Decoded,
    beam_search,
    ctc_losses,
    forced_alignment,
    greedy,
    line_steps,
)
from lstm_jax.metrics.edit_distance import align, edit_distances
from lstm_jax.tasks.task import Task, check_mask, masked

# Columns of a prediction: label; probability; run of steps, from the first to before
# the last.
LABEL, CONFIDENCE, FIRST, LAST = range(4)
SHOWN = 20  # number of confusions in a report


def text_recognition(alphabet: Sequence[str], *, beam_width: int | None = None) -> Task:
    """Recognizes text lines with CTC.

    The loss is -log p(text | image), the mean over lines. A line whose text needs more
    steps than there are has probability 0 and is ignored; find such lines with
    `ctc.infeasible`.

    Training metrics use the best path: "cer", the edits of all lines divided by their
    true characters, and "exact", the fraction of lines without an error.

    Args:
      alphabet: characters; label k is `alphabet[k - 1]`.
      beam_width: beam width of a prefix beam search; None: best path decoding.

    Returns:
      A Task; targets are int [B, L], labels 1 to K - 1, padded with 0; outputs are
      logits [B, T, K], padded with certain blanks as described in `ctc`; predictions
      are float32 [B, T, 4], one row per character, padded with 0: label, confidence,
      first step, step after the last. `outputs` is K = len(alphabet) + 1.

    Raises:
      ValueError: an empty alphabet, or a repeated character.

    Reference: Graves et al. 2006. Departs: the loss is not divided by the text length.
    """
    alphabet = tuple(alphabet)
    if not alphabet or len(set(alphabet)) < len(alphabet) or "" in alphabet:
        twice = [c for c, n in Counter(alphabet).items() if n > 1]
        fault = f"holds {twice[0]!r} twice" if twice else "is empty, or a character is"
        raise ValueError(f"recognition: the alphabet {fault}; expected 1 or more")
    k = 1 + len(alphabet)

    def check(outputs, batch):
        targets, mask = batch["targets"], batch["mask"]
        if outputs.ndim != 3 or outputs.shape[-1] != k:
            raise ValueError(
                f"recognition: outputs have shape {outputs.shape}, expected [B, T, "
                f"{k}]; give the head {k} outputs"
            )
        if targets.ndim != 2 or len(targets) != len(outputs):
            raise ValueError(
                f"recognition: targets {targets.shape} do not fit outputs "
                f"{outputs.shape}; expected [B, L], labels padded with 0"
            )
        check_mask("recognition", mask, targets)
        return outputs.astype(jnp.float32), targets, mask.astype(jnp.float32)

    def loss_of(outputs, batch):
        outputs, targets, mask = check(outputs, batch)
        repeats = (targets[:, 1:] == targets[:, :-1]) & (targets[:, 1:] != 0)
        wanted = (targets != 0).sum(-1) + repeats.sum(-1)
        possible = wanted <= line_steps(outputs)
        weights = jnp.where(possible, mask, 0.0)
        return masked(ctc_losses(outputs, targets), weights)

    def metrics(outputs, batch):
        outputs, targets, mask = check(outputs, batch)
        edits = edit_distances(targets, greedy(outputs).labels).astype(jnp.float32)
        lengths = (targets != 0).sum(-1).astype(jnp.float32)
        real = (mask > 0).astype(jnp.float32)
        return {
            "loss": loss_of(outputs, batch),
            "cer": (jnp.sum(edits * real), jnp.sum(lengths * real)),
            "exact": masked(edits == 0, mask),
        }

    def predict(outputs):
        outputs = outputs.astype(jnp.float32)
        if beam_width is None:
            return as_rows(greedy(outputs))
        best = beam_search(outputs, beam_width).labels[:, 0]
        return as_rows(forced_alignment(outputs, best))

    def report(predictions, targets):
        predictions, targets = _check(predictions, targets)
        true = [text_of(row, alphabet) for row in targets]
        read = [text_of(row[:, LABEL], alphabet) for row in predictions]
        return {"task": "recognition", "examples": len(true), **scores(true, read)}

    def figures(predictions, targets):
        return {"confusions": confusion_figure(report(predictions, targets))}

    return Task(
        name="recognition",
        outputs=k,
        loss=loss_of,
        metrics=metrics,
        predict=predict,
        monitor="cer",
        mode="min",
        report=report,
        figures=figures,
        example_losses=_example_losses,
        weighted_scores=_weighted_scores,
    )


def as_rows(reading: Decoded):
    """A Decoded as predictions, float32 [B, T, 4]."""
    columns = reading.labels, reading.confidence, reading.first, reading.last
    return jnp.stack([column.astype(jnp.float32) for column in columns], axis=-1)


def text_of(labels: np.ndarray, alphabet: Sequence[str]) -> str:
    """Characters of labels [L]; zeros are skipped."""
    return "".join(alphabet[int(label) - 1] for label in labels if label)


def scores(true: Sequence[str], read: Sequence[str]) -> dict:
    """Error rates of recognized lines.

    Args:
      true, read: true and recognized texts, in the same order.

    Returns:
      cer: edits divided by true characters, over all lines; wer: the same for words,
      separated by spaces; exact: fraction of lines without an error; substitutions,
      deletions and insertions of characters; characters and words, the numbers of true
      ones; confusions: the most frequent errors, with "" for a missing character. A
      rate is None if its denominator is 0.

    Raises:
      ValueError: the numbers of texts differ.
    """
    if len(true) != len(read):
        raise ValueError(f"scores: {len(true)} true texts, but {len(read)} recognized")
    characters = [align(t, r) for t, r in zip(true, read, strict=True)]
    words = [align(t.split(), r.split()) for t, r in zip(true, read, strict=True)]
    total = sum(map(len, true))
    spoken = sum(len(t.split()) for t in true)
    mistakes = Counter(
        (t or "", r or "") for found in characters for t, r in found.pairs if t != r
    )
    most = sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    kinds = ("substitutions", "deletions", "insertions")
    edits = sum(found.distance for found in characters)
    return {
        "cer": edits / total if total else None,
        "wer": sum(found.distance for found in words) / spoken if spoken else None,
        "exact": float(np.mean([t == r for t, r in zip(true, read, strict=True)])),
        **{kind: sum(getattr(found, kind) for found in characters) for kind in kinds},
        "characters": total,
        "words": spoken,
        "confusions": [
            {"true": t, "read": r, "count": count} for (t, r), count in most
        ],
    }


def _example_losses(predictions, targets):
    """Edits of each line, divided by its true characters."""
    edits, characters, _ = _text_counts(predictions, targets)
    return edits / np.maximum(characters, 1)


def _weighted_scores(predictions, targets) -> Scores:
    edits, characters, exact = _text_counts(predictions, targets)

    def scores(weights):
        total = weights @ characters
        return {
            "cer": np.where(total > 0, weights @ edits / np.maximum(total, 1), np.nan),
            "exact": weights @ exact.astype(np.float64) / weights.sum(1),
        }

    return scores


def _text_counts(predictions, targets):
    """Edits, characters, and whether all is correct, of each line, [N] each."""
    true = [[int(label) for label in row if label] for row in targets]
    read = [[int(label) for label in row if label] for row in predictions[..., 0]]
    pairs = zip(true, read, strict=True)
    edits = np.asarray([align(t, r).distance for t, r in pairs], np.float64)
    return edits, np.asarray([len(t) for t in true], np.float64), edits == 0


def _check(predictions, targets):
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    fits = predictions.ndim == 3 and predictions.shape[-1] == 4 and targets.ndim == 2
    if not fits or len(predictions) != len(targets) or not len(targets):
        raise ValueError(
            f"recognition: predictions have shape {predictions.shape} for targets "
            f"{targets.shape}; expected [N, T, 4] and [N, L], N >= 1"
        )
    check_finite("recognition", np.isfinite(predictions).all((-1, -2)))
    return predictions, targets
