"""Recognition: the task's numbers, and CTC through a whole padded network."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.metrics.ctc import ctc_losses, greedy
from lstm_jax.models import VGSLNet
from lstm_jax.models.vgsl import parse
from lstm_jax.tasks import Task, text_recognition
from lstm_jax.tasks.text_recognition import (
    CONFIDENCE,
    FIRST,
    LABEL,
    LAST,
    scores,
    text_of,
)

ALPHABET = "abé 漢"
K = 1 + len(ALPHABET)
SPEC = "[1,8,0,1 Cr3,3,4 Mp2,2 Gn2 S1(1x0)1,3 Lbx3 O1c6]"
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def labels_of(texts, width):
    out = np.zeros((len(texts), width), np.int32)
    for row, text in zip(out, texts, strict=True):
        row[: len(text)] = [1 + ALPHABET.index(c) for c in text]
    return out


def logits_of(texts, steps, sure=5.0):
    """Logits that say each text, a blank after each character, and then only blanks."""
    out = np.full((len(texts), steps, K), -np.inf, np.float32)
    out[..., 0] = 0
    for row, text in zip(out, texts, strict=True):
        for at, character in enumerate(text):
            row[2 * at : 2 * at + 2] = 0
            row[2 * at, 1 + ALPHABET.index(character)] = sure
            row[2 * at + 1, 0] = sure
    return jnp.asarray(out)


def made(dtype):
    """A small network, its params, and lines of text of three widths."""
    network = VGSLNet(parse(SPEC))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(3, 8, 24, 1)), dtype)
    params = compiled(network.init)(jax.random.key(0), images.astype(jnp.float32))
    params = jax.tree.map(
        lambda p: p.astype(dtype) + jnp.asarray(0.3 * rng.normal(size=p.shape), dtype),
        params,
    )
    return network, params, images


def test_gradients_through_a_padded_network_are_those_of_differences(x64):
    network, params, images = made(jnp.float64)
    lengths = jnp.asarray([24, 13, 18])
    labels = labels_of(["ab é", "aa", ""], 6)

    def loss(params, images):
        logits = network.apply(params, images, lengths=lengths)
        return ctc_losses(logits, labels).sum()

    value = compiled(loss)

    found = compiled(jax.grad(loss, (0, 1)))(params, images)
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(found))
    rng = np.random.default_rng(1)
    leaves, tree = jax.tree.flatten((params, images))
    grads = jax.tree.leaves(found)
    for number, (leaf, grad) in enumerate(zip(leaves, grads, strict=True)):
        way = rng.normal(size=leaf.shape)

        def at(step, number=number, way=way):
            moved = list(leaves)
            moved[number] = moved[number] + step * way
            return float(value(*jax.tree.unflatten(tree, moved)))

        wanted = (at(1e-5) - at(-1e-5)) / 2e-5
        assert float((grad * way).sum()) == pytest.approx(wanted, rel=1e-6, abs=1e-7)
    past = np.asarray(found[1])[1, :, 13:]
    np.testing.assert_array_equal(past, 0)


def test_a_line_reads_the_same_in_three_widths():
    network, params, images = made(jnp.float32)
    labels = labels_of(["ab é", "aa", ""], 6)
    lengths = jnp.asarray([17, 13, 16])

    @compiled
    def read(images):
        logits = network.apply(params, images, lengths=lengths)
        return greedy(logits), ctc_losses(logits, labels)

    rng = np.random.default_rng(2)
    results = []
    for width in (17, 24, 40):
        more = rng.normal(size=(3, 8, 40, 1)).astype(np.float32)
        wide = np.concatenate([images, more], axis=2)[:, :, :width]
        path, losses = read(jnp.asarray(wide))
        results.append((np.asarray(path.labels)[:, :8], path.log_prob, losses))
    texts, *numbers = results[0]
    assert texts.any()
    for other, *more in results[1:]:
        np.testing.assert_array_equal(other, texts)
        for got, wanted in zip(more, numbers, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-5)  # float32


TRUE = ["ab é", "aab", "漢", "ba"]
READ = ["ab é", "ab", "漢漢", "bé"]


def batch(texts=TRUE, width=7, **more):
    labels = labels_of(texts, width)
    return {"targets": jnp.asarray(labels), "mask": jnp.ones(len(texts)), **more}


def test_the_metrics_count_what_was_read():
    task = text_recognition(ALPHABET)
    assert isinstance(task, Task) and task.outputs == K
    assert (task.monitor, task.mode) == ("cer", "min")
    outputs = logits_of(READ, 12)
    found = {
        n: [float(x) for x in pair]
        for n, pair in task.metrics(outputs, batch()).items()
    }
    assert found["cer"] == [3.0, 10.0] and found["exact"] == [1.0, 4.0]
    data = batch(mask=jnp.asarray([1.0, 1.0, 0.0, 0.5]))
    found = task.metrics(outputs, data)
    assert [float(x) for x in found["cer"]] == [2.0, 9.0]
    assert [float(x) for x in found["exact"]] == [1.0, 2.5]


def test_lines_with_more_to_say_than_steps_do_not_count():
    task = text_recognition(ALPHABET)
    outputs = logits_of(TRUE, 12)
    data = batch(["ab é", "aabbaab", "漢", "ba"])  # the second has six steps
    each = [float(x) for x in ctc_losses(outputs, data["targets"])]
    total, count = task.loss(outputs, data)
    assert float(count) == 3
    assert float(total) == pytest.approx(each[0] + each[2] + each[3], rel=1e-6)
    grads = jax.grad(lambda o: task.loss(o, data)[0])(outputs)
    assert jnp.isfinite(grads).all() and (grads[1] == 0).all() and (grads[0] != 0).any()


@pytest.mark.parametrize("beam_width", [None, 4])
def test_a_prediction_has_characters_with_places(beam_width):
    task = text_recognition(ALPHABET, beam_width=beam_width)
    found = np.asarray(task.predict(logits_of(["ab", "éaa"], 8)))
    assert found.shape == (2, 8, 4) and found.dtype == np.float32
    assert [text_of(row[:, LABEL], ALPHABET) for row in found] == ["ab", "éaa"]
    p = np.exp(5) / (np.exp(5) + K - 1)
    for row, length in zip(found, (2, 3), strict=True):
        np.testing.assert_array_equal(row[:length, FIRST], 2 * np.arange(length))
        np.testing.assert_array_equal(row[:length, LAST], 2 * np.arange(length) + 1)
        np.testing.assert_allclose(row[:length, CONFIDENCE], p, rtol=1e-5)
        assert (row[length:] == 0).all()


def test_the_report_has_rates_and_confusions():
    task = text_recognition(ALPHABET)
    predictions = task.predict(logits_of(READ, 12))
    found = task.report(predictions, labels_of(TRUE, 7))
    assert json.loads(json.dumps(found)) == found
    assert found["cer"] == pytest.approx(0.3) and found["exact"] == 0.25
    assert found["wer"] == pytest.approx(3 / 5)
    kinds = ("substitutions", "deletions", "insertions")
    assert [found[kind] for kind in kinds] == [1, 1, 1]
    assert {"true": "a", "read": "é", "count": 1} in found["confusions"]
    assert {"true": "", "read": "漢", "count": 1} in found["confusions"]
    fig = task.figures(predictions, labels_of(TRUE, 7))["confusions"]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert "(none) → U+6F22" in names and "a → (none)" in names
    fig.canvas.draw()


def plain_distance(a, b):
    table = [
        [i + j if not i * j else 0 for j in range(len(b) + 1)]
        for i in range(len(a) + 1)
    ]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            swap = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(swap, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]


def test_rates_of_random_unicode_lines():
    rng = np.random.default_rng(3)
    characters = list("abc  é漢🙂אß\u0301")
    draw = lambda: "".join(rng.choice(characters, rng.integers(0, 25)))  # noqa: E731
    true = [draw() for _ in range(40)]
    read = [t[:3] + draw()[:4] + t[5:] for t in true]
    found = scores(true, read)
    edits = sum(map(plain_distance, true, read))
    assert found["cer"] == pytest.approx(edits / sum(map(len, true)))
    words = [(t.split(), r.split()) for t, r in zip(true, read, strict=True)]
    edits = sum(plain_distance(t, r) for t, r in words)
    assert found["wer"] == pytest.approx(edits / sum(len(t) for t, _ in words))
    assert scores([""], ["a"])["cer"] is None and scores([""], [""])["exact"] == 1.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: text_recognition(""), "the alphabet is empty"),
        (lambda: text_recognition("aba"), "the alphabet holds 'a' twice"),
        (
            lambda: text_recognition("ab").loss(jnp.zeros((4, 9, 7)), batch()),
            r"outputs have shape \(4, 9, 7\), expected \[B, T, 3\]",
        ),
        (
            lambda: text_recognition(ALPHABET).loss(jnp.zeros((3, 9, K)), batch()),
            r"targets \(4, 7\) do not fit outputs \(3, 9, 6\)",
        ),
        (
            lambda: text_recognition(ALPHABET).report(
                np.zeros((0, 3, 4)), np.zeros((0, 2))
            ),
            "N >= 1",
        ),
        (
            lambda: text_recognition(ALPHABET).report(
                np.full((1, 3, 4), np.nan), np.zeros((1, 2))
            ),
            "1 of 1 predictions hold NaN",
        ),
        (lambda: scores(["a"], []), "1 true texts, but 0 recognized"),
    ],
)
def test_mistakes_are_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()
