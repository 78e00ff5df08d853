"""The API reference in MkDocs: a page for each package, from its docstrings."""

import re
from collections import defaultdict
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
COMMANDS = ("train", "predict", "report", "sweep", "benchmark", "export")


def _packages() -> dict[str, list[str]]:
    """The public modules by package; of `experiments`, those of the commands."""
    packages = defaultdict(list)
    for path in sorted((ROOT / "lstm_jax").rglob("*.py")):
        *package, module = path.relative_to(ROOT).with_suffix("").parts
        if not module.startswith("_"):
            packages[".".join(package)].append(module)
    return {**packages, "experiments": COMMANDS}


def on_files(files, config):
    """Hook of MkDocs: adds the pages, which exist in the site only."""
    pages = []
    for package, modules in _packages().items():
        entries = [f"::: {package}.{module}" for module in modules]
        path = f"reference/{package}.md"
        text = "\n\n".join([f"# {package}", *entries])
        files.append(File.generated(config, path, content=text))
        pages.append({package: path})
    config.nav.append({"API reference": pages})
    return files


class Doctests(griffe.Extension):
    """Marks examples that begin with >>> as code, for Markdown."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)>>> .*(?:\n.*\S.*)*",
                r"\1```pycon\n\g<0>\n\1```",
                obj.docstring.value,
                flags=re.MULTILINE,
            )
