"""What the README shows of the library runs as it stands there."""

import re
from pathlib import Path

import jax.numpy as jnp

README = Path(__file__).parents[1] / "README.md"


def test_the_code_of_the_readme_runs():
    section = README.read_text().split("## In your own code")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) >= 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
        if "unroll(" in block:
            assert names["ys"].shape == (20, 32, 28)
            assert not names["ys"][15:].any() and jnp.abs(names["ys"][:15]).min() > 0
        if "logits" in block:
            assert names.pop("logits").shape == (32, 10)
