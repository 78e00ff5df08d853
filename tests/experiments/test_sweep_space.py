"""Ranges and lists on the command line, and the line of `train` that comes back."""

import shlex

import numpy as np
import pytest

from experiments.config import chooses, options, override, preset, train_line
from experiments.errors import UsageError
from experiments.flags import parse
from experiments.search.space import (
    Choices,
    Range,
    read,
    split,
    split_flags,
    with_values,
)

BASE = preset("digits")
READ = {
    "optimizer.learning_rate=1e-4..1e-2": Range(1e-4, 1e-2, True, False),
    "optimizer.weight_decay=1e-5..0.1": Range(1e-5, 0.1, True, False),
    "optimizer.weight_decay=0..0.1:linear": Range(0.0, 0.1, False, False),
    "model.dropout=0...5": Range(0.0, 0.5, False, False),
    "model.layers=1..3": Range(1, 3, False, True),
    "model.features=16..256:log": Range(16, 256, True, True),
    "model.features=32, 64,128": Choices((32, 64, 128)),
    "model.cell=lstm,gru": Choices(("lstm", "gru")),
    "model.bidirectional=True,false": Choices((True, False)),
    "optimizer.clip=None,0.5,1": Choices((None, 0.5, 1.0)),
    "data.size=None,16": Choices((None, 16)),
    "batch_size=16..64": Range(16, 64, False, True),
    "model.cell.forget_bias=chrono,1.5": Choices(("chrono", 1.5)),
}


def values_of(config):
    return {option.name: option.value for option in options(config)}


@pytest.mark.parametrize("case", READ)
def test_a_value_is_understood(case):
    name, _, text = case.partition("=")
    flag = f"--{name.replace('_', '-')}"
    for arguments in ([f"{flag}={text}"], [f"--{name}={text}"], [flag, text]):
        searched, rest = split_flags(BASE, ["--steps=5", *arguments, "--no-baselines"])
        assert rest == ["--steps=5", "--no-baselines"]
        config, space = read(BASE, searched)
        assert space == {name: READ[case]}
        (what,) = space.values()
        assert list(map(type, what.ends())) == list(map(type, READ[case].ends()))
        # the config that other checks see is one that a trial can have
        assert values_of(config)[name] == what.ends()[0]


def test_texts_and_single_values_are_left_to_train():
    arguments = (
        "--data.source=../photos,old --run-dir ../a..b --optimizer.freeze=enc,head "
        "--model.features=64 --no-baselines --epochs 5 --trials=4"
    ).split()
    assert split_flags(BASE, arguments) == ({}, arguments)


def test_options_of_the_function_may_be_lists():
    config, searched = split(
        BASE,
        dict(
            model__features=[8, 16],
            optimizer__learning_rate="1e-3..1e-2",
            model__cell=("lstm", "gru"),
            steps=5,
            data="../a,b",
        ),
    )
    assert config == override(BASE, {"steps": 5, "data": "../a,b"})
    _, space = read(config, searched)
    assert space["model.features"] == Choices((8, 16))
    assert space["optimizer.learning_rate"].log
    assert space["model.cell"] == Choices(("lstm", "gru"))


MISTAKES = {
    "optimizer.learning_rate=0..1e-2": ["log scale", ":linear"],
    "optimizer.learning_rate=1e-2..1e-4": ["the lower end must come first"],
    "optimizer.learning_rate=1e-4..1e-2:lgo": [":log or :linear", "mean :log?"],
    "optimizer.learning_rate=small..big": ["LOW..HIGH", "number"],
    "optimizer.learning_rate=1e-4..inf": ["the lower end must come first"],
    "model.layers=1.5..3": ["each end is an integer"],
    "model.layers=0..3": ["model.layers=0", "1 or more"],
    "model.dropout=0..1": ["model.dropout=1", "[0, 1)"],
    "model.cell=lstm..gru": ["a list", "lstm,gru"],
    "model.bidirectional=False..True": ["a list", "True,False"],
    "model.cell=lstm,gur": ["'gur'", "did you mean 'gru'?"],
    "model.features=64,wide": ["'wide'", "int"],
    "model.features=64,": ["''", "int"],
    "model.features=64,64": ["two different values"],
    "baselines=True,False": ["baselines", "cannot be searched"],
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_says_what_was_wanted(case):
    name, _, text = case.partition("=")
    with pytest.raises(UsageError) as error:
        read(preset("digits"), {name: text})
    for word in (name, *MISTAKES[case]):
        assert word in str(error.value)


def test_epochs_cannot_be_searched_where_steps_rule():
    with pytest.raises(UsageError, match="steps=1500 overrides them.*--steps=None"):
        read(preset("moving-digits"), {"epochs": "5..10"})


def test_drawn_numbers_have_four_digits_and_stay_inside():
    rng = np.random.default_rng(0)
    low, high = 0.0123456, 0.0765432
    inside = Range(low, high, False, False)
    for drawn in [low, high, *rng.uniform(low, high, 200)]:
        value = inside.rounded(drawn)
        assert low <= value <= high
        assert abs(value - drawn) <= 5e-4 * drawn  # half a unit of the fourth digit
        assert len(str(value).lstrip("0.")) <= 4 or value in (low, high)
    assert Range(1, 9, False, True).rounded(3) == 3


def test_an_option_of_one_kind_is_searched_beside_the_kinds():
    """A trial with another kind goes without it."""
    searched = {"model.cell": "gru,lstm", "model.cell.forget_bias": "0.5..1.5"}
    config, space = read(BASE, searched)
    assert space["model.cell.forget_bias"] == Range(0.5, 1.5, False, False)
    drawn = {"model.cell": "lstm", "model.cell.forget_bias": 0.7}
    assert with_values(config, drawn).model.cell.forget_bias == 0.7
    assert with_values(config, drawn | {"model.cell": "gru"}).model.cell.name == "gru"
    with pytest.raises(UsageError, match="an option of model.cell=rnn, not of lstm"):
        read(BASE, {"model.cell.activation": "tanh,relu"})


def another(option):
    """A value that an option can have and has not."""
    if bool in option.types:
        return not option.value
    if option.words:
        return next(word for word in option.words if word != option.value)
    for kind in (int, float):
        if kind in option.types:
            return kind((option.value or 0) + 3)
    return "it's a b/../c"


@pytest.mark.parametrize("name", ["digits", "moving-digits", "detect-digits"])
def test_the_line_of_a_config_makes_that_config(name, monkeypatch):
    """The word of each flag, whether or not a run can have it."""
    monkeypatch.setattr("experiments.flags.check", lambda config: config)
    base = preset(name)
    plain = [o for o in options(base) if not chooses(base, o.name)]
    values = {option.name: another(option) for option in plain}
    assert len(values) > 40
    for flag, value in values.items():
        words = shlex.split(train_line(name, override(base, {flag: value})))
        assert words[:4] == ["python", "-m", "experiments.train", name]
        assert len(words) == 5, words
    for every in (
        override(base, values),
        override(base, {"steps": None, "epochs": None, "optimizer.clip": None}),
        *(
            override(base, {option.name: word})
            for option in options(base)
            if chooses(base, option.name)
            for word in option.words
        ),
    ):
        assert parse(shlex.split(train_line(name, every))[3:]) == (name, every)
