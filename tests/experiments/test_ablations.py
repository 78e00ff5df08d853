"""Ablations of failing trainings, at reduced size."""

import dataclasses
import json

import pytest

from experiments.benchmarks import ablations


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vanishing", "exploding"])
def test_a_case_is_trained_told_and_drawn(name, tmp_path, monkeypatch, capsys, drawn):
    case = ablations.CASES[name]
    small = dict(model__features=8, data__size=8, batch_size=16, log_every=1)
    first = dict(list(case.networks.items())[:2])
    if name == "exploding":  # the failing one is made to diverge in these few steps
        first["no clipping"] |= dict(optimizer__learning_rate=1e8)
    case = dataclasses.replace(
        case, common=case.common | small, networks=first, steps=6
    )
    monkeypatch.setitem(ablations.CASES, name, case)
    found = ablations.ablations(ablations.Ablations(cases=(name,), out=tmp_path))
    rows = found[name]
    assert [row["network"] for row in rows] == list(first)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == rows
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert 0 <= rows[1]["test accuracy"] <= 1
    if name == "exploding":
        assert rows[0]["test accuracy"] is None
        assert [row["diverged"] for row in rows] == ["1 of 1", "0 of 1"]
        assert "| no clipping | - | " in capsys.readouterr().out
    else:  # over 64 steps a Xavier tanh RNN loses more than an orthogonal one
        ratios = [row["gradient, first / last step"] for row in rows]
        assert 0 < ratios[0] < ratios[1]


def test_what_the_tables_say():
    def row(step, split, **values):
        return dict(step=step, split=split, **values)

    network = ablations.Trained(
        label="some",
        scores=[0.5, 0.7],
        gradients=None,
        histories=[
            [
                row(5, "train", loss=1.0, gradient_norm=3.0),
                row(10, "validation", loss=0.5, accuracy=0.91),
            ],
            [
                row(5, "train", loss=0.2, gradient_norm=None),
                row(20, "validation", loss=0.7, accuracy=0.95),
            ],
        ],
    )
    slow = ablations._row(ablations.CASES["slow"], network)
    assert slow["steps to 90 % validation"] == 15
    assert slow["test accuracy"] == pytest.approx(0.6)
    over = ablations._row(ablations.CASES["overfitting"], network)
    assert over["train loss"] == pytest.approx(0.6)
    assert over["validation loss"] == pytest.approx(0.6)
    exploded = ablations._row(ablations.CASES["exploding"], network)
    assert exploded["largest gradient norm"] == "infinite"
