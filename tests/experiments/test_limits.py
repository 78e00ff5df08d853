"""What no run can have is refused in one line, before anything is allocated."""

import jax
import pytest

from experiments.config import check, override, preset
from experiments.errors import explain
from lstm_jax import training


def refused(result, *words):
    code, _, err = result
    assert code == 2 and len(err.strip().splitlines()) == 1, err
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    "flag, words",
    [
        (f"--seed={2**32}", "must be in [0, 2**32)"),
        (f"--seed={2**63}", "must be in [0, 2**32)"),
        (f"--data.split-seed={2**32}", "must be in [0, 2**32)"),
        ("--steps=9999999999", "at most 2,147,483,647"),
        ("--epochs=1e12", "a run has at most 2,147,483,647"),
        ("--model.features=60000", "115,209,840,010 parameters: with optimizer"),
        ("--model.features=1000000000", "GiB. Give a smaller network"),
    ],
)
def test_too_large_is_one_line(command, own_folder, flag, words):
    result = command("train", "digits", "--accelerator=cpu", flag)
    refused(result, words)
    assert not list(own_folder.iterdir())


def test_the_largest_seed_is_no_other(command):
    largest = override(preset("digits"), {"seed": 2**32 - 1})
    assert check(largest).seed == 2**32 - 1
    keys = [jax.random.key_data(jax.random.key(s)) for s in (2**32 - 1, 0)]
    assert (keys[0] != keys[1]).any()
    flags = f"--seeds=2 --seed={2**32 - 1} --steps=1 --accelerator=cpu".split()
    refused(command("sweep", "digits", *flags), "seeds must be below 2**32")


def test_the_sum_is_of_all_that_a_device_must_hold(command, monkeypatch):
    sums = []
    monkeypatch.setattr(training, "device_memory", lambda device: sums.append(1) or 1)
    result = command("train", "digits", "--accelerator=cpu", "--model.features=512")
    refused(result, "parameters: with optimizer state and gradients", "has 0.0 GiB")
    assert sums


def test_memory_that_runs_out_is_one_line():
    def allocate():
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 1759218604441600 bytes.\nmore"
        )

    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        allocate()
    assert explain(caught.value).startswith(
        "error: out of memory (Out of memory allocating 1759218604441600 bytes.): give"
    )


def test_memory_of_the_machine():
    assert training.device_memory(jax.devices("cpu")[0]) > 2**28
