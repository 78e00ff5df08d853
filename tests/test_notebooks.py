"""The notebooks: as their sources say, and run from end to end.

They are executed only where LSTM_JAX_NOTEBOOKS=1, for their install cell installs into
the environment of these tests: `.ci/run` makes environments like Colab's and Kaggle's.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("quickstart", "tpu")
REPOSITORY = "https://github.com/lstm-jax/lstm_jax"
CODE = ("lstm_jax", "experiments", "notebooks", "pyproject.toml", "README.md")

# Runs after the last cell of the notebook, in the same kernel.
ASIDE = """
import json, sys
import experiments, jax, lstm_jax
print(json.dumps({
    "python": sys.executable,
    "devices": jax.device_count(),
    "tensorflow": "tensorflow" in sys.modules,
    "files": [lstm_jax.__file__, experiments.__file__],
}))
"""
# The same seed on one device and on all: float32 sums in another order, 10 steps.
SAME_RUN = "assert len(every) == 10 and difference < 1e-3, difference"


@pytest.fixture(params=NAMES)
def notebook(request):
    return ROOT / "notebooks" / f"{request.param}.ipynb"


def test_a_notebook_is_what_its_source_says(notebook):
    jupytext = pytest.importorskip("jupytext")

    def cells(path):
        return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]

    assert cells(notebook) == cells(notebook.with_suffix(".py")), (
        "make it anew: jupytext --to ipynb --update notebooks/*.py"
    )


def test_a_notebook_is_committed_without_outputs(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    about = content["metadata"]
    assert about["kernelspec"]["name"] == "python3"
    assert about["kernelspec"]["language"] == "python"
    assert about.get("accelerator") == ("TPU" if notebook.stem == "tpu" else None)


def test_a_notebook_opens_itself_in_colab_and_kaggle(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    badges = "".join(content["cells"][0]["source"])
    path = f"blob/main/notebooks/{notebook.name}"
    colab = REPOSITORY.replace("https://github.com", "/github")
    assert f"https://colab.research.google.com{colab}/{path}" in badges
    assert f"https://kaggle.com/kernels/welcome?src={REPOSITORY}/{path}" in badges


@pytest.fixture
def copy(tmp_path):
    """A repository with the code as it is here, committed or not."""
    folder = tmp_path / "copy"
    junk = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints")
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=junk)
        else:
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "copy"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


@pytest.mark.notebooks
@pytest.mark.skipif(
    os.environ.get("LSTM_JAX_NOTEBOOKS") != "1",
    reason="installs into this environment; .ci/run sets LSTM_JAX_NOTEBOOKS=1",
)
@pytest.mark.parametrize(
    ("name", "cloned", "pictures"), [("quickstart", False, 5), ("tpu", True, 1)]
)
def test_a_notebook_runs_to_its_end(name, cloned, pictures, copy, tmp_path):
    """Inside a checkout; or from an empty folder, where it clones one."""
    import nbclient
    import nbformat

    folder = tmp_path / "empty" if cloned else copy / "notebooks"
    folder.mkdir(exist_ok=True)
    content = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    if name == "tpu":
        content.cells.append(nbformat.v4.new_code_cell(SAME_RUN))
    content.cells.append(nbformat.v4.new_code_cell(ASIDE))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "CI": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "LSTM_JAX_DATA": str(tmp_path / "prepared"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        # What the notebook clones from the web is the copy.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }
    before = versions()
    client = nbclient.NotebookClient(
        content, timeout=300, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    assert versions() == before and {"jax", "jaxlib"} <= set(before)

    outputs = [o for cell in content.cells for o in cell.get("outputs", [])]
    aside = json.loads(outputs[-1].text)
    assert Path(aside["python"]) == Path(sys.executable)
    assert aside["devices"] == 8
    assert not aside["tensorflow"]
    home = folder / "lstm_jax" if cloned else copy
    assert all(Path(file).is_relative_to(home) for file in aside["files"])
    shown = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(shown) == pictures
    said = "".join(o.text for o in outputs if o.output_type == "stream")
    assert "Traceback" not in said and "DeprecationWarning" not in said, said
    assert (home / "runs").is_dir()


def versions():
    """Of what the machine brings, and the notebook must leave alone."""
    there = {each.name: each.version for each in metadata.distributions()}
    return {name: there[name] for name in ("jax", "jaxlib", "libtpu") if name in there}
