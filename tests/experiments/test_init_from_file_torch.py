"""A classifier that PyTorch trained answers the same here, and trains on."""

import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import train
from experiments.config import override, preset
from experiments.experiment import Experiment, load_data
from experiments.run.init_from import weights_from
from lstm_jax import data

torch = pytest.importorskip("torch", reason="PyTorch is compared with, not required")

pytestmark = pytest.mark.slow  # compared in `make test-all`


class Theirs(torch.nn.Module):
    """As a person would write it; two biases, names of their own."""

    def __init__(self, inputs, config, outputs):
        super().__init__()
        options = dict(batch_first=True, num_layers=config.model.layers)
        ways = {"bidirectional": config.model.bidirectional}
        self.reads = torch.nn.LSTM(inputs, config.model.features, **options, **ways)
        width = config.model.features * (2 if config.model.bidirectional else 1)
        self.answers = torch.nn.Linear(width, outputs)

    def forward(self, xs):
        ways = 2 if self.reads.bidirectional else 1
        (h, _) = self.reads(xs)[1]
        return self.answers(torch.cat(tuple(h[-ways:]), -1))


def taught(config, steps, path):
    """Trains theirs on our batches, and saves it; also how it answers the test set."""
    dataset = load_data(config)
    about = Experiment(config, dataset=dataset).spec
    split, test = dataset.splits["train"], dataset.splits["test"]
    offset, scale = np.float32(about.pixel_offset), np.float32(about.pixel_scale)

    def rows(images):
        images = (images.astype(np.float32) - offset) * scale
        return torch.from_numpy(images.reshape(*images.shape[:2], -1))

    torch.manual_seed(config.seed)
    _, w, c = about.image_shape
    module = Theirs(w * c, config, about.outputs)
    adam = torch.optim.Adam(module.parameters(), lr=config.optimizer.learning_rate)
    for step in range(steps):
        batch = data.train_batch(split, config.batch_size, seed=0, step=step)
        targets = torch.from_numpy(batch["targets"]).long()
        adam.zero_grad()
        logits = module(rows(batch["inputs"]))
        torch.nn.functional.cross_entropy(logits, targets).backward()
        adam.step()
    torch.save(module.state_dict(), path)
    with torch.no_grad():
        images = test.inputs
        logits = np.concatenate(
            [module(rows(images[k : k + 1000])) for k in range(0, len(images), 1000)]
        )
    return SimpleNamespace(about=about, test=test, logits=logits)


def answers_alike(config, path, theirs):
    """Ours with the weights of the file: the largest difference of a logit."""
    fresh = Experiment(config, theirs.about).init(jax.random.key(0))
    params, lines = weights_from(str(path), theirs.about, fresh)
    count = len(jax.tree.leaves(fresh))
    assert lines == [f"{path}: loaded {count} of {count} parameters"]
    forward = jax.jit(Experiment(config, theirs.about).outputs)
    images = theirs.test.inputs
    ours = np.concatenate(
        [forward(params, images[k : k + 1000]) for k in range(0, len(images), 1000)]
    )
    np.testing.assert_array_equal(ours.argmax(-1), theirs.logits.argmax(-1))
    return np.abs(ours - theirs.logits).max()


def trains_on(name, options, path, theirs, tmp_path, steps):
    """Accuracy theirs, ours before any step, and after some."""
    before = train(
        name,
        **options,
        steps=1,
        init_from=path,
        run_dir=tmp_path / "before",
        optimizer__learning_rate=0.0,
    )
    after = train(name, **options, steps=steps, init_from=path, run_dir=tmp_path / "a")
    scored = (theirs.logits.argmax(-1) == theirs.test.targets).mean()
    found = [run.report["test"]["accuracy"] for run in (before, after)]
    assert found[0] == pytest.approx(scored, abs=1e-9)
    return scored, *found


@pytest.mark.parametrize("bidirectional, layers", [(False, 1), (True, 2)])
def test_digits(bidirectional, layers, tmp_path):
    options = dict(
        accelerator="cpu",
        baselines=False,
        test_checkpoint="last",
        augment__translate=0,
        model__features=24,
        model__layers=layers,
        model__bidirectional=bidirectional,
        model__order="rows",
        model__pooling="last",
        model__dropout=0.0,
    )
    config = override(preset("digits"), options)
    steps = 10 if bidirectional else 150
    theirs = taught(config, steps, tmp_path / "x.pt")
    # float32: sums of some dozen products in another order
    assert answers_alike(config, tmp_path / "x.pt", theirs) < 1e-4
    if bidirectional:
        return  # to train on is the same
    scored, _, after = trains_on(
        "digits", options, tmp_path / "x.pt", theirs, tmp_path, steps
    )
    assert scored > 0.5 and after > scored


@pytest.mark.slow
def test_fashion_mnist(tmp_path):
    """One epoch of all 60,000 pictures there, one more here."""
    folder = os.environ.get("LSTM_JAX_FASHION_MNIST")
    if not folder:
        pytest.skip("LSTM_JAX_FASHION_MNIST names no folder with its four idx files")
    options = dict(accelerator="cpu", test_checkpoint="last", data__manual_dir=folder)
    config = override(preset("fashion-rows"), options)
    dataset = load_data(config)
    steps = len(dataset.splits["train"].inputs) // config.batch_size
    theirs = taught(config, steps, tmp_path / "x.pt")
    worst = answers_alike(config, tmp_path / "x.pt", theirs)
    found = trains_on(
        "fashion-rows", options, tmp_path / "x.pt", theirs, tmp_path, steps
    )
    print(
        f"\n{len(theirs.logits):,} pictures answered alike, logits within {worst:.1e}; "
        "accuracy of PyTorch's {:.4f}, here {:.4f}, one epoch on {:.4f}".format(*found)
    )
    assert worst < 1e-4 and found[2] > found[0]
