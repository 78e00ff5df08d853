"""CTC by all paths: the loss, greedy reading, and beam search against all texts."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.metrics.ctc import (
    beam_search,
    ctc_losses,
    forced_alignment,
    greedy,
    infeasible,
    line_steps,
    needed_steps,
)

compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
T, K = 4, 3


def said(path):
    """The text of a path: repeats merged, then blanks dropped."""
    return tuple(label for label, _ in itertools.groupby(path) if label)


def texts(logits):
    """The probability of each text of one line, by all of its paths."""
    p = np.exp(np.float64(logits))
    p /= p.sum(-1, keepdims=True)
    found = {}
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        one = np.prod([row[label] for row, label in zip(p, path, strict=True)])
        found[said(path)] = found.get(said(path), 0.0) + one
    return found


def random_logits(batch, seed=0, time=T, classes=K):
    return np.random.default_rng(seed).normal(size=(batch, time, classes)) * 2


def padded(logits, more):
    """With steps that say blank for sure at the end."""
    tail = np.full((len(logits), more, logits.shape[2]), -np.inf)
    tail[..., 0] = 0
    return np.concatenate([logits, tail], axis=1)


def rows(labels, width):
    out = np.zeros((len(labels), width), np.int32)
    for row, text in zip(out, labels, strict=True):
        row[: len(text)] = text
    return out


def read_off(labels):
    return tuple(int(label) for label in labels if label)


def test_the_loss_sums_over_all_paths():
    logits, every = random_logits(1), texts(random_logits(1)[0])
    assert sum(every.values()) == pytest.approx(1)
    labels = rows(list(every), T)
    many = np.repeat(padded(logits, 3), len(every), 0).astype(np.float32)
    loss = compiled(ctc_losses)(many, labels)
    np.testing.assert_allclose(loss, -np.log(list(every.values())), rtol=1e-4)  # f32
    grads = compiled(jax.grad(lambda x: ctc_losses(x, labels).sum()))(many)
    assert np.isfinite(grads).all() and (grads[:, T:] == 0).all()
    assert (line_steps(jnp.asarray(many)) == T).all()


def test_lines_with_more_to_say_than_steps():
    labels = rows([(1, 2), (1, 1), (1, 1, 1), (2, 1, 1, 2), ()], 4)
    np.testing.assert_array_equal(needed_steps(labels), [2, 3, 5, 5, 0])
    steps = np.array([2, 2, 5, 4, 0])
    np.testing.assert_array_equal(infeasible(labels, steps), [0, 1, 0, 1, 0])
    every = texts(random_logits(1)[0])
    for text in itertools.chain.from_iterable(
        itertools.product((1, 2), repeat=n) for n in range(5)
    ):
        assert (text in every) == (not infeasible(rows([text], 4), np.array([T]))[0])


def test_the_best_path_has_characters_with_places():
    path = [0, 2, 2, 0, 2, 1, 1, 0]
    logits = 0.1 * random_logits(1, time=8)
    logits[0, np.arange(8), path] += 4
    p = np.exp(logits[0])
    p /= p.sum(-1, keepdims=True)
    best = p[np.arange(8), path]
    for more in (0, 5):
        found = jax.tree.map(lambda x: x[0], greedy(jnp.asarray(padded(logits, more))))
        assert read_off(found.labels) == (2, 2, 1)
        np.testing.assert_array_equal(found.first[:4], [1, 4, 5, 0])
        np.testing.assert_array_equal(found.last[:4], [3, 5, 7, 0])
        wanted = [best[1:3].max(), best[4], best[5:7].max(), 0]
        np.testing.assert_allclose(found.confidence[:4], wanted, rtol=1e-5)
        assert found.log_prob == pytest.approx(np.log(best).sum(), rel=1e-5)


def test_the_best_path_is_found_again():
    logits = jnp.asarray(padded(random_logits(8, time=9), 3), jnp.float32)
    found = greedy(logits)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        forced_alignment(logits, found.labels),
        found,
    )


def test_a_text_is_placed_along_its_best_path():
    logits = random_logits(1)
    p = np.exp(logits[0])
    p /= p.sum(-1, keepdims=True)
    every = list(texts(logits[0]))
    many = jnp.asarray(np.repeat(logits, len(every), 0), jnp.float32)
    found = forced_alignment(many, jnp.asarray(rows(every, T)))
    for row, text in enumerate(every):
        paths = itertools.product(range(K), repeat=T)
        best = max(
            (path for path in paths if said(path) == text),
            key=lambda path: np.prod(p[np.arange(T), path]),
        )
        assert read_off(found.labels[row]) == text
        got = np.zeros(T, int)
        for k, label in enumerate(text):
            got[found.first[row, k] : found.last[row, k]] = label
        assert tuple(got) == best
        wanted = np.log(p[np.arange(T), best]).sum()
        assert found.log_prob[row] == pytest.approx(wanted, rel=1e-5)
    cannot = forced_alignment(many[:1], jnp.asarray(rows([(1, 1, 1)], T)))
    assert np.isneginf(cannot.log_prob[0])


def test_a_wide_beam_search_is_the_exhaustive_search():
    logits = random_logits(6)
    search = compiled(partial(beam_search, beam_width=40))
    for more in (0, 2):
        found = search(jnp.asarray(padded(logits, more), jnp.float32))
        for row, line in enumerate(logits):
            every = texts(line)
            order = sorted(every, key=every.get, reverse=True)
            got = [read_off(labels) for labels in found.labels[row]]
            alive = np.isfinite(found.log_prob[row])
            assert alive.sum() == len(order) and got[: len(order)] == order
            wanted = [np.log(every[text]) for text in order]
            np.testing.assert_allclose(found.log_prob[row][alive], wanted, atol=1e-5)


def beams_of(logits, beam_width):
    """A prefix beam search with a dictionary."""
    p = np.exp(np.float64(logits))
    p /= p.sum(-1, keepdims=True)
    kept = {(): (1.0, 0.0)}
    for row in p:
        after = {}

        def add(text, blank, label, after=after):
            old = after.get(text, (0.0, 0.0))
            after[text] = (old[0] + blank, old[1] + label)

        for text, (blank, label) in kept.items():
            add(text, (blank + label) * row[0], label * row[text[-1]] if text else 0.0)
            for c in range(1, len(row)):
                again = text and text[-1] == c
                add((*text, c), 0.0, (blank if again else blank + label) * row[c])
        best = sorted(after, key=lambda text: -sum(after[text]))[:beam_width]
        kept = {text: after[text] for text in best}
    return kept


@pytest.mark.parametrize("beam_width", [1, 2, 5])
def test_a_narrow_beam_search_is_that_with_a_dictionary(beam_width):
    logits = random_logits(5, seed=1, time=7, classes=4)
    found = compiled(partial(beam_search, beam_width=beam_width))(
        jnp.asarray(logits, jnp.float32)
    )
    for row, line in enumerate(logits):
        wanted = beams_of(line, beam_width)
        got = [read_off(labels) for labels in found.labels[row]]
        assert got == list(wanted)
        sums = [sum(pair) for pair in wanted.values()]
        np.testing.assert_allclose(found.log_prob[row], np.log(sums), atol=1e-5)


def test_no_beam_is_refused():
    with pytest.raises(ValueError, match="beam_width=0; expected 1 or more"):
        beam_search(jnp.zeros((1, 2, K)), 0)


def test_a_sure_line_costs_nothing_and_no_less():
    """Rounding leaves -8e-8 of these in float32; the gradient is as it was."""
    logits = jnp.array([[[0.0, 17.0], [0.0, 17.0]]])
    labels = jnp.array([[1]])
    loss, gradient = jax.value_and_grad(lambda x: ctc_losses(x, labels)[0])(logits)
    assert 0 <= loss < 1e-6
    # p = 1 - p(blank)², so that d loss / d x = -2 p(blank)² p(1) / (1 - p(blank)²) / 2.
    blank = 1 / (1 + np.exp(17.0))
    np.testing.assert_allclose(gradient[0, :, 1], -(blank**2), atol=1e-6)
    found = beam_search(logits, 2).log_prob
    assert (found <= 0).all() and found[0, 0] > -1e-6
