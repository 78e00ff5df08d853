"""What no run can have is refused in one line, before anything is allocated."""

import jax
import pytest
from small_runs import SMALL, SMALL_MODEL
from test_train_lines import fill

from experiments.config import check, override, preset
from experiments.errors import UsageError, explain
from experiments.experiment import Experiment
from experiments.reporting.evaluation import batch_shapes
from experiments.run.setup import activation_bytes, check_memory
from lstm_jax import training
from lstm_jax.inspect.summary import temporary_bytes


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


def test_a_spec_of_petabytes_is_one_line(command, own_folder):
    lines = fill(own_folder / "lines", 20, "ox", 0)
    spec = "--model.spec=[1,16,0,1 S1(16x0)1,3 Lfx10000000]"
    result = command("train", "text-lines", f"--data={lines}", spec)
    # 4 n (n + 1 + 1), and for each of o, x and blank 16 n + 1, with n = 10⁷; 12 bytes
    # each, of the weight, its gradient and Muon's momentum.
    refused(result, "400,000,560,000,003 parameters: with", "4,470,354.8 GiB, but")
    assert [path.name for path in own_folder.iterdir()] == ["lines"]


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


def small(**options):
    base = SMALL | SMALL_MODEL | dict(model__features=64, model__dropout=0.2)
    return Experiment(check(override(preset("digits"), base | options)))


def test_activations_are_what_the_compiled_program_keeps():
    made = small(batch_size=512)
    shapes = made.state_shapes().params
    batch = batch_shapes(made.split, 512)
    batch["progress"] = batch["mask"]
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 512))
    gradient = jax.jit(jax.grad(lambda *a: made.loss(*a)[0][0]))
    size = temporary_bytes(gradient.lower(shapes, batch, keys).compile())
    # XLA computes some again, and keeps others twice.
    assert size / 2 < activation_bytes(made, shapes, 512) < 2 * size
    # At least gates and cell states of all 8 rows, in float32.
    assert activation_bytes(made, shapes, 512) > 512 * 8 * 5 * 64 * 4


@pytest.mark.parametrize(
    "options, seeds, refused",
    [
        (
            dict(batch_size=4096),
            None,
            "activations of 4,096 examples about 0.[0-9] GiB",
        ),
        (dict(batch_size=4096), 1, "activations of 4,096 examples"),
        (dict(batch_size=4096, grad_accum_steps=16), None, ""),
        (dict(batch_size=16), None, ""),
    ],
)
def test_activations_that_do_not_fit_are_refused(options, seeds, refused, monkeypatch):
    monkeypatch.setattr(training, "device_memory", lambda device: 20 * 2**20)
    made, mesh = small(**options), training.data_mesh(jax.devices("cpu")[:1])
    if not refused:
        return check_memory(made, mesh, seeds)
    with pytest.raises(UsageError, match=f"{refused}.*Give a smaller --batch-size"):
        check_memory(made, mesh, seeds)


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
