"""Every command of the tour runs as it stands there, but smaller, one after another."""

import re
import shlex
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "docs" / "tour.md"
TEXT = TOUR.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
SIZES = (
    "--steps=8 --eval-every=8 --model.features=8 --model.layers=1 "
    "--model.no-bidirectional --model.engine=scan --model.dropout=0 "
    "--augment.translate=0"
)
SMALLER = {
    "train": f"--no-baselines {SIZES}",
    "sweep": f"--trials=2 {SIZES}",
    "report": "",
}
FEWER = {"--folds": "2", "--seeds": "2"}


def commands() -> list[list[str]]:
    """The words after `python -m experiments.` of each line."""
    lines = "\n".join(BLOCKS).replace("\\\n", " ").splitlines()
    start = "python -m experiments."
    return [
        shlex.split(line.removeprefix(start), comments=True)
        for line in lines
        if line.startswith(start)
    ]


def smaller(words: list[str]) -> list[str]:
    """A command with what sets its size replaced, and the rest as it stands."""
    name, *flags = words
    sizes = SMALLER[name].split()
    if "segment-digits" in flags:  # whose network has fewer flags
        sizes = "--steps=8 --eval-every=8 --model.features=8 --model.layers=1".split()
    keys = {size.partition("=")[0] for size in sizes}
    kept = []
    for flag in flags:
        key = flag.partition("=")[0]
        if key in FEWER:
            flag = f"{key}={FEWER[key]}"
        if key not in keys:
            kept.append(flag)
    return [name, *kept, *sizes]


@pytest.fixture
def quicker(monkeypatch):
    """Pictures of few dots."""
    monkeypatch.setattr("experiments.reporting.page.DPI", 40)


@pytest.mark.slow
def test_the_commands_of_the_tour_run_and_write_what_it_says(
    command, own_folder, quicker
):
    told = commands()
    assert len(told) > 20
    for words in told:
        code, out, err = command(*smaller(words))
        assert code == 0, f"{shlex.join(words)}\n{out}{err}"
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    files = re.findall(r"`(runs/[^`\s]+)`", prose)
    assert len(files) > 5
    missing = [file for file in files if not (own_folder / file).exists()]
    assert not missing, missing


def test_what_the_tour_links_to_is_there_and_small():
    links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)|src="([^"]+)"', TEXT)
    found = [TOUR.parent / (first or second) for first, second in links]
    assert len(found) > 10
    assert not [str(path) for path in found if not path.exists()]
    own = list((TOUR.parent / "images").glob("tour_*.png"))
    assert all(path in found for path in own)
    assert all(path.stat().st_size < 90_000 for path in own)
    assert sum(path.stat().st_size for path in own) < 600_000
