"""Seeds in one program, and the range test, train on the batches of `train`."""

import json

import numpy as np
import pytest
from test_train_lines import fill

from experiments import train
from experiments.config import check, override, preset
from experiments.evaluation.seeds import train_seeds
from experiments.search.learning_rate import lr_find
from lstm_jax import training

STEPS = 9  # of 30 training lines in batches of 4: into the second epoch
TINY = dict(accelerator="cpu", batch_size=4, baselines=False, steps_per_execution=1)
LINES = dict(data__buckets=3, model__spec="[1,16,0,1 S1(16x0)1,3 Lfx4]")
PRESETS = {
    "digits": dict(model__cell="rnn", model__features=4, model__layers=1),
    "text-lines": LINES,
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A folder of 40 lines, in three buckets of width."""
    return fill(tmp_path_factory.mktemp("lines") / "lines", 40, "oxL", 0)


class Recorded(Exception):
    """All steps have had their batches."""


@pytest.fixture
def batches_of(monkeypatch):
    """`run -> batches`: those of each step of a training that computes nothing."""

    def batches_of(run):
        recorded = []

        def make_step(ones):
            def update(state, batches, count):
                recorded.extend([batches] * count)
                if len(recorded) == STEPS:
                    raise Recorded
                return state, {"loss": (ones, ones)}

            def same(x):
                return x

            return lambda *_, **__: training.TrainStep(update, same, same, same)

        monkeypatch.setattr(training, "make_train_step", make_step(np.ones(1)))
        monkeypatch.setattr(training, "make_seeds_step", make_step(np.ones((1, 2))))
        with pytest.raises(Recorded):
            run()
        return recorded

    return batches_of


@pytest.mark.parametrize("name", PRESETS)
def test_batches_are_those_of_train(name, lines, batches_of, tmp_path):
    options = TINY | PRESETS[name] | dict(steps=100, log_every=100, eval_every=100)
    if name == "text-lines":
        options["data"] = str(lines)
    alone = batches_of(lambda: train(name, run_dir=tmp_path / "a", seed=4, **options))
    shapes = {batch["inputs"].shape for batch in alone if "inputs" in batch}
    assert len(shapes) == (3 if name == "text-lines" else 0)

    found = batches_of(lambda: lr_find(name, run_dir=tmp_path / "b", seed=4, **options))
    for mine, wanted in zip(found, alone, strict=True):
        assert mine.keys() == wanted.keys()
        for key in wanted.keys() - {"progress"}:  # a range test is at 0 of the run
            np.testing.assert_array_equal(mine[key], wanted[key])

    config = check(override(preset(name), options | dict(seed=3)))
    config = override(config, dict(run_dir=str(tmp_path / "c")))
    found = batches_of(lambda: train_seeds(name, config, 2))
    widths = sorted(shape[3] for shape in shapes)
    for both, wanted in zip(found, alone, strict=True):
        mine = {key: x[:, 1] for key, x in both.items()}  # seed 4 is the second
        if widths:
            width = widths[int(mine.pop("bucket")[0])]
            assert mine["inputs"].shape[3] == widths[-1]
            mine["inputs"] = mine["inputs"][:, :, :, :width]
        assert mine.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_array_equal(mine[key], wanted[key])
    # seed 3 has batches of its own
    key = "inputs" if widths else "rows"
    assert any((both[key][:, 0] != both[key][:, 1]).any() for both in found)


@pytest.mark.slow
def test_losses_on_lines_are_those_of_train(lines, monkeypatch, tmp_path):
    options = TINY | LINES | dict(steps=STEPS, log_every=1, eval_every=STEPS)
    options |= dict(
        data=str(lines), model__spec="[1,16,0,1 Cr3,3,4,4,2 S1(1x0)1,3 Lfx4]"
    )
    alone = train("text-lines", run_dir=tmp_path / "alone", seed=4, **options)
    config = override(preset("text-lines"), options | dict(seed=3))
    config = check(override(config, dict(run_dir=str(tmp_path / "seeds"))))
    train_seeds("text-lines", config, 2)
    text = (tmp_path / "seeds" / "seed-4" / "metrics.jsonl").read_text()
    for ours, theirs in zip(
        map(json.loads, text.splitlines()), alone.history, strict=True
    ):
        assert (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
        # the same sums in another order, over 9 steps in float32
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    report = json.loads((tmp_path / "seeds" / "seed-4" / "report.json").read_text())
    assert report["test"]["cer"] == pytest.approx(alone.report["test"]["cer"])
    first = lr_find("text-lines", run_dir=tmp_path / "r", seed=4, **options)
    assert first.losses[0] == pytest.approx(alone.history[0]["loss"], rel=1e-5)
