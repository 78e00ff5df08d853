"""Connectionist temporal classification (CTC): loss, decoding and alignment.

Logits are `[B, T, K]`; class 0 is the blank. Padding steps after the end of a line have
the logit 0 for blank and -inf for all other classes, which changes no probability and
encodes the number of steps. Labels are int `[B, L]`, 1 to K - 1, padded with 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Decoded(NamedTuple):
    """Decoded characters of each line, with their positions.

    Attributes:
      labels: int32 [B, T], padded with 0.
      confidence: float [B, T], largest probability of the label within its run.
      first, last: int32 [B, T], the run of steps: from `first` to before `last`.
      log_prob: [B], log-probability of the path, nats.
    """

    labels: jax.Array
    confidence: jax.Array
    first: jax.Array
    last: jax.Array
    log_prob: jax.Array


class Beams(NamedTuple):
    """The most probable texts of each line, in descending order.

    Attributes:
      labels: int32 [B, N, T], padded with 0.
      log_prob: [B, N], log-probability of the text, as far as it was searched, nats.
    """

    labels: jax.Array
    log_prob: jax.Array


def line_steps(logits: jax.Array) -> jax.Array:
    """Number of steps before the padding of each line, int32 [B]."""
    read = ~jnp.isneginf(logits[..., 1:]).all(-1)  # [B, T]
    ends = jnp.arange(1, logits.shape[1] + 1, dtype=jnp.int32)
    return jnp.where(read, ends, jnp.zeros_like(ends)).max(-1)


def ctc_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log p(labels | logits) of each line, nats.

        p(l) = sum over paths with B(path) = l of prod_t softmax(logits_t)[path_t]

    where B merges repeats, then drops blanks.

    Args:
      logits: [B, T, K], float32 or wider.
      labels: int [B, L].

    Returns:
      [B], at least 0; about 1e5 for labels that need more steps than there are.

    Reference: Graves et al. 2006, eq. 3 and 8; optax computes it.
    """
    steps = jnp.arange(logits.shape[1], dtype=jnp.int32)
    past = steps >= line_steps(logits)[:, None]
    # Zeros in place of -inf: its gradient in the recursion would be NaN.
    logits = jnp.where(past[..., None], jnp.zeros((), logits.dtype), logits)
    blanks = past.astype(logits.dtype), (labels == 0).astype(logits.dtype)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes float32 and float64
        losses = optax.ctc_loss(logits, blanks[0], labels, blanks[1])
    # Rounding may give a value below 0; the gradient is correct there, too.
    return losses + jax.lax.stop_gradient(jnp.maximum(-losses, 0))


def needed_steps(labels: np.ndarray) -> np.ndarray:
    """Minimum number of steps of labels [..., L]: one each, and one per repetition."""
    labels = np.asarray(labels)
    repeats = (labels[..., 1:] == labels[..., :-1]) & (labels[..., 1:] != 0)
    return (labels != 0).sum(-1) + repeats.sum(-1)


def infeasible(labels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Which lines have more labels than CTC can emit in their steps.

    Args:
      labels: int [N, L], padded with 0.
      steps: int [N], number of steps of each line's logits.

    Returns:
      bool [N].
    """
    return needed_steps(labels) > np.asarray(steps)


def greedy(logits: jax.Array) -> Decoded:
    """The text of the most probable path (best path decoding).

    Args:
      logits: [B, T, K].

    Returns:
      A Decoded.

    Reference: Graves et al. 2006, section 3.2, best path decoding.
    """
    return jax.vmap(_greedy)(jax.nn.log_softmax(logits))


def _greedy(log_p):  # [T, K]
    path, best = log_p.argmax(-1).astype(jnp.int32), log_p.max(-1)
    before = jnp.concatenate([jnp.zeros(1, jnp.int32), path[:-1]])
    starts = (path != 0) & (path != before)
    return _runs(path, jnp.cumsum(starts.astype(jnp.int32)) - 1, best)


def _runs(path, number, log_p) -> Decoded:
    """Characters of a path [T]; `number[t]` is the index of step t's character."""
    time = len(path)
    run = jnp.where(path != 0, number, time)  # blanks are out of range and dropped
    at = jnp.arange(time, dtype=jnp.int32)

    def gathered(start, values, how):
        row = jnp.full(time, start, values.dtype).at[run]
        return getattr(row, how)(values, mode="drop")

    labels = gathered(0, path, "max")
    return Decoded(
        labels=labels,
        confidence=gathered(0, jnp.exp(log_p), "max"),
        first=jnp.where(labels != 0, gathered(time, at, "min"), 0),
        last=gathered(0, at + 1, "max"),
        log_prob=log_p.sum(),
    )


def forced_alignment(logits: jax.Array, labels: jax.Array) -> Decoded:
    """The most probable path of a given text (forced alignment).

    Args:
      logits: [B, T, K].
      labels: int [B, L], 1 to K - 1, padded with 0.

    Returns:
      A Decoded with these labels; if they need more steps than there are, log_prob is
      -inf and the other fields are meaningless.

    Reference: the recursion of Graves et al. 2006, eq. 6, with the maximum for the sum.
    """
    return jax.vmap(_forced_alignment)(jax.nn.log_softmax(logits), labels)


def _forced_alignment(log_p, labels):  # [T, K], [L]
    size = 2 * len(labels) + 1
    states = jnp.arange(size)
    said = jnp.zeros(size, jnp.int32).at[1::2].set(labels.astype(jnp.int32))
    others = said != jnp.roll(said, 2)
    skips = (states % 2 == 1) & (states > 1) & others
    emissions = log_p[:, said]  # [T, S]

    def back(row, by):  # of the state `by` places before
        return jnp.where(states >= by, jnp.roll(row, by), -jnp.inf)

    def step(row, emit):
        far = jnp.where(skips, back(row, 2), -jnp.inf)
        choices = jnp.stack([row, back(row, 1), far])
        return choices.max(0) + emit, choices.argmax(0)

    start = jnp.where(states < 2, emissions[0], -jnp.inf)
    end, moves = jax.lax.scan(step, start, emissions[1:])
    count = (labels != 0).sum()
    ends = (states == 2 * count) | (states == 2 * count - 1)
    end = jnp.where(ends, end, -jnp.inf)
    last = end.argmax().astype(jnp.int32)

    def before(state, move):
        return state - move[state].astype(jnp.int32), state

    first, path = jax.lax.scan(before, last, moves, reverse=True)
    path = jnp.concatenate([first[None], path])  # [T], states
    along = jnp.take_along_axis(emissions, path[:, None], axis=1)[:, 0]
    reading = _runs(said[path], (path - 1) // 2, along)
    return reading._replace(log_prob=end.max())


def beam_search(logits: jax.Array, beam_width: int = 8) -> Beams:
    """The most probable texts, by prefix beam search: sums over the paths of each text.

    Args:
      logits: [B, T, K].
      beam_width: N, beam width, at least 1.

    Returns:
      The N best texts of each line; -inf for those that do not exist.

    Raises:
      ValueError: `beam_width` is out of range.

    Reference: Graves 2008, section 4.4.2, prefix search; Hannun et al. 2014,
    algorithm 1, without a language model. Departs: in one step all prefixes are
    extended by all classes, as matrices of a fixed size.
    """
    if beam_width < 1:
        raise ValueError(f"beam_search: beam_width={beam_width}; expected 1 or more")
    log_p = jax.nn.log_softmax(logits)
    return jax.vmap(lambda one: _search(one, beam_width))(log_p)


class _State(NamedTuple):
    """N prefixes: their labels [N, T], and lengths and log-probabilities [N].

    `blank` and `label` are the log-probabilities of paths that end in a blank or label.
    """

    prefixes: jax.Array
    lengths: jax.Array
    blank: jax.Array
    label: jax.Array


def _search(log_p, beam_width: int) -> Beams:  # [T, K]
    none = jnp.full(beam_width, -jnp.inf, log_p.dtype)
    start = _State(
        prefixes=jnp.zeros((beam_width, len(log_p)), jnp.int32),
        lengths=jnp.zeros(beam_width, jnp.int32),
        blank=none.at[0].set(0.0),
        label=none,
    )
    state, _ = jax.lax.scan(lambda state, p: (_step(state, p), None), start, log_p)
    found = jnp.minimum(jnp.logaddexp(state.blank, state.label), 0)  # by rounding
    order = jnp.argsort(found, descending=True)
    return Beams(state.prefixes[order], found[order])


def _step(state: _State, log_p) -> _State:
    n, size = state.prefixes.shape
    others = log_p[1:]  # [K - 1], of the classes 1, 2 and so on
    k = len(others)
    total = jnp.logaddexp(state.blank, state.label)
    at_end = jnp.arange(size) == state.lengths[:, None] - 1  # [N, T]
    final = jnp.where(at_end, state.prefixes, 0).sum(-1)  # [N], 0 where empty
    parents = jnp.where(at_end, 0, state.prefixes)

    # A prefix stays as it is after a blank or a repetition of its last label.
    blank = total + log_p[0]
    label = jnp.where(final > 0, state.label + log_p[final], -jnp.inf)
    # Or it is extended; repeating a label requires a blank in between.
    again = final[:, None] == jnp.arange(1, k + 1)  # [N, K - 1]
    longer = jnp.where(again, state.blank[:, None], total[:, None]) + others
    # The extension may be one of the prefixes already: add their paths.
    child = (state.lengths[:, None] == state.lengths + 1) & (
        parents[:, None] == state.prefixes
    ).all(-1)  # [N of children, N of parents]
    paths = jnp.where(child, longer[:, final - 1].T, -jnp.inf)
    label = jnp.logaddexp(label, paths.max(-1))
    taken = (child[:, :, None] & again[:, None]).any(0)  # [parents, K - 1]
    longer = jnp.where(taken, -jnp.inf, longer)

    stays = jnp.logaddexp(blank, label)
    _, best = jax.lax.top_k(jnp.concatenate([stays, longer.reshape(-1)]), n)
    grows = best >= n
    source = jnp.where(grows, (best - n) // k, best)
    new = jnp.where(grows, (best - n) % k, 0)  # class index minus 1
    lengths = state.lengths[source]
    put = grows[:, None] & (jnp.arange(size) == lengths[:, None])
    return _State(
        prefixes=jnp.where(put, new[:, None] + 1, state.prefixes[source]),
        lengths=lengths + grows.astype(jnp.int32),
        blank=jnp.where(grows, -jnp.inf, blank[source]),
        label=jnp.where(grows, longer[source, new], label[source]),
    )
