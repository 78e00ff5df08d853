"""Average precision against pycocotools, over random answers and by hand."""

import contextlib
import io

import numpy as np
import pytest
from selection import slow

from lstm_jax.metrics import average_precision
from lstm_jax.metrics.average_precision import MOST

PICTURES, CLASSES, CASES = 2, 2, 1000
LARGE = 1e12  # an area above the evaluator's range: a thing that counts neither way
NAMES = ("ap", "ap50", "ap75", "ar", "ar50")


def truth(corners, label=0, crowd=0, hidden=0.0):
    return [*corners, label, crowd, hidden]


def padded(rows, most, width, column):
    """Rows of one image, with rows that are none after them."""
    table = np.zeros((most, width))
    table[:, column] = -1
    if rows:
        table[: len(rows)] = rows
    return table


def random_corners(rng, number):
    # Quarters of a pixel: x + (x1 - x) is x1, so both see the same corners.
    low = rng.integers(0, 24, (number, 2))
    return np.concatenate([low, low + rng.integers(1, 24, (number, 2))], 1) / 4


def random_case(rng):
    """Answers [N, Q, 6] and things [N, M, 7]; some images have none of either."""
    answers, things, perfect = [], [], rng.random() < 0.05
    for _ in range(PICTURES):
        count = rng.integers(0, 5) * (rng.random() < 0.8)
        corners = random_corners(rng, count)
        crowd, hidden = rng.random(count) < 0.2, rng.choice([0.0, 0.5, 0.75], count)
        label = rng.integers(0, CLASSES, count)
        things.append(
            [truth(*row) for row in zip(corners, label, crowd, hidden, strict=True)]
        )
        rows = []
        for row in rng.permutation(len(corners)):  # near a thing, often of its class
            for _ in range(rng.integers(0, 3)):
                moved = corners[row] + rng.integers(-1, 2, 4) / 4 * [1, 1, 0, 0]
                moved[:2] = np.minimum(moved[:2], moved[2:] - 0.25)
                other = rng.integers(0, CLASSES)
                rows.append([*moved, 0, label[row] if rng.random() < 0.8 else other])
        for loose in random_corners(rng, rng.integers(0, 3)):
            rows.append([*loose, 0, rng.integers(0, CLASSES)])
        if rng.random() < 0.15:
            rows = []
        if perfect:
            rows = [[*row, 0, k] for row, k in zip(corners, label, strict=True)]
        for row in rows:
            row[4] = rng.integers(0, 9) / 8  # some scores are equal
        answers.append(rows)
    return (
        np.stack([padded(rows, 14, 6, 4) for rows in answers]),
        np.stack([padded(rows, 5, 7, 4) for rows in things]),
    )


def evaluator(cases, classes, pictures, hidden=False):
    """pycocotools, run once: each class of each case is a category of its own."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    found, answered = [], []

    def row(picture, category, corners, **more):
        x0, y0, x1, y1 = map(float, corners)
        box = [x0, y0, x1 - x0, y1 - y0]
        area = box[2] * box[3]
        return dict(image_id=picture, category_id=category, bbox=box, area=area) | more

    for number, (answers, things) in enumerate(cases):
        for picture in range(pictures):
            for thing in things[picture]:
                if thing[4] < 0:
                    continue
                label = number * classes + int(thing[4]) + 1
                each = row(picture + 1, label, thing[:4], iscrowd=int(thing[5]))
                if hidden and thing[6] <= 0.5:
                    each["area"] = LARGE
                found.append(each | {"id": len(found) + 1})
            for answer in answers[picture]:
                if answer[4] >= 0:
                    label = number * classes + int(answer[5]) + 1
                    score = float(answer[4])
                    each = row(picture + 1, label, answer[:4], score=score, iscrowd=0)
                    answered.append(each | {"id": len(answered) + 1})
    categories = [{"id": 1 + k} for k in range(len(cases) * classes)]
    images = [{"id": 1 + k} for k in range(pictures)]
    with contextlib.redirect_stdout(io.StringIO()):
        sets = coco.COCO(), coco.COCO()
        for one, rows in zip(sets, (found, answered), strict=True):
            one.dataset = dict(images=images, categories=categories, annotations=rows)
            one.createIndex()
        judge = cocoeval.COCOeval(*sets, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets = [100]
        judge.evaluate()
        judge.accumulate()
    precision, recall = judge.eval["precision"][..., 0, 0], judge.eval["recall"]
    return precision, recall[..., 0, 0]  # [10, 101, K], [10, K]


def mean(values):
    """Of what is not -1, which says that a class does not occur."""
    values = values[values > -1]
    return values.mean() if values.size else None


def compare(got, precision, recall):
    """Numbers of one case with the arrays of the evaluator."""
    wanted = {
        "ap": mean(precision),
        "ap50": mean(precision[0]),
        "ap75": mean(precision[5]),
        "ar": mean(recall),
        "ar50": mean(recall[0]),
    }
    for name, value in wanted.items():
        # Both take means of the same float64 fractions, in another order.
        assert got[name] == (None if value is None else pytest.approx(value, abs=1e-12))
    for k, row in enumerate(got["per_class"]):
        value = mean(precision[..., k])
        assert row["ap"] == (None if value is None else pytest.approx(value, abs=1e-12))


@pytest.mark.parametrize(
    "hidden, number",
    [(False, CASES // 5), (True, CASES // 5), slow(False, CASES)],
)
def test_equals_pycocotools_on_random_cases(hidden, number):
    rng = np.random.default_rng(int(hidden))
    cases = [random_case(rng) for _ in range(number)]
    precision, recall = evaluator(cases, CLASSES, PICTURES, hidden=hidden)
    seen = []
    for at, (answers, things) in enumerate(cases):
        got = average_precision(answers, things, CLASSES, hidden=hidden)
        part = slice(at * CLASSES, (at + 1) * CLASSES)
        compare(got, precision[..., part], recall[..., part])
        seen.append(got["ap"])
    # The cases are worth it: none at all, all wrong, all right, and much between.
    values = np.array([v for v in seen if v is not None])
    assert None in seen and (values == 0).any() and (values == 1).any()
    assert ((values > 0) & (values < 1)).mean() > 0.5


@pytest.mark.parametrize("things", [0, 2])
@pytest.mark.parametrize("answers", [0, 3])
def test_empty_pictures(answers, things):
    rng = np.random.default_rng(3)
    said = [[*corners, 0.5, 0] for corners in random_corners(rng, answers)]
    true = [truth(corners) for corners in random_corners(rng, things)]
    case = padded(said, 4, 6, 4)[None], padded(true, 3, 7, 4)[None]
    got = average_precision(*case, 2)
    compare(got, *evaluator([case], 2, 1))
    assert (got["ap"] is None) == (things == 0)
    assert [row["things"] for row in got["per_class"]] == [things, 0]
    none = average_precision(np.zeros((1, 0, 6)), np.zeros((1, 0, 7)), 2)
    assert [none[name] for name in NAMES] == [None] * 5


def test_equals_the_official_summary():
    """The evaluator as it is, with its own areas and counts of answers."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(4)
    things, answers = [], []
    for picture in range(20):
        for x0, y0, x1, y1 in random_corners(rng, 4) * 8:
            box = [x0, y0, x1 - x0, y1 - y0]
            things.append((picture, int(rng.integers(2)), box))
            near = [x0 + rng.normal(), y0 + rng.normal(), x1 - x0, y1 - y0]
            answers.append((picture, int(rng.integers(2)), near, rng.random()))
    with contextlib.redirect_stdout(io.StringIO()):
        one = coco.COCO()
        one.dataset = {
            "images": [{"id": k} for k in range(20)],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": [
                dict(image_id=p, category_id=k, bbox=b, area=b[2] * b[3], iscrowd=0)
                | {"id": 1 + number}
                for number, (p, k, b) in enumerate(things)
            ],
        }
        one.createIndex()
        one.dataset["info"] = {}
        other = one.loadRes(
            [dict(image_id=p, category_id=k, bbox=b, score=s) for p, k, b, s in answers]
        )
        judge = cocoeval.COCOeval(one, other, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()

    def corners(box):
        return [box[0], box[1], box[0] + box[2], box[1] + box[3]]

    said = [
        [[*corners(b), s, k] for p, k, b, s in answers if p == n] for n in range(20)
    ]
    true = [[truth(corners(b), k) for p, k, b in things if p == n] for n in range(20)]
    got = average_precision(np.array(said), np.array(true), 2)
    wanted = judge.stats[[0, 1, 2, 8]]
    assert 0.1 < wanted[0] < 0.9
    np.testing.assert_allclose(  # means of equal float64 fractions
        [got[name] for name in ("ap", "ap50", "ap75", "ar")], wanted, atol=1e-12
    )


def test_the_hundred_best_answers_of_a_class_count():
    rng = np.random.default_rng(5)
    corners = random_corners(rng, MOST + 40)
    scores = rng.permutation(len(corners)) / len(corners)
    labels = rng.integers(0, 2, len(corners)) * (rng.random(len(corners)) < 0.2)
    answers = np.concatenate([corners, scores[:, None], labels[:, None]], 1)[None]
    things = np.array([[truth(box, k) for box, k in zip(corners, labels, strict=True)]])
    got = average_precision(answers, things, 2)
    compare(got, *evaluator([(answers, things)], 2, 1))
    first, second = (int((labels == k).sum()) for k in (0, 1))
    assert first > MOST > second > 1
    assert got["per_class"][0]["ar50"] == pytest.approx(MOST / first)
    assert got["per_class"][1]["ar50"] == 1


def test_curves_are_the_precisions_whose_mean_is_ap():
    rng = np.random.default_rng(6)
    cases = [random_case(rng) for _ in range(20)]
    precision = evaluator(cases, CLASSES, PICTURES)[0]
    for number, (answers, things) in enumerate(cases):
        part = precision[..., number * CLASSES : (number + 1) * CLASSES]
        there = part[..., (part > -1).all((0, 1))]
        curves = average_precision(answers, things, CLASSES, curves=True)["curves"]
        wanted = there.mean(-1) if there.size else np.zeros((10, 101))
        np.testing.assert_allclose(curves, wanted, atol=1e-12)  # rounding in float64
