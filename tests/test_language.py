"""README, pages, help, sources and public names use the field's terms.

Code, tables, links and images are exempt.
"""

import ast
import importlib
import re
import tokenize
from io import StringIO
from pathlib import Path

import pytest

from experiments import flags
from experiments.config import preset
from experiments.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
WIDTH = 100
# What to write instead, and the words and phrases, as regular expressions, that it
# replaces. Only what is never right in this project's English is listed.
REFUSED = {
    "image": "pictures?",
    "video, clip, animation": "films?|filmed",
    "detector, learning-rate range test": "finders?",
    "prediction": "answers? (for|to|by|of)|(is|are|be) answered",
    "diagnosis": "ails?|ailments?|in words what",
    "remedy, fix": "cures?|cured",
    "resume": "goes on from|typed again|go on from",
    "bit-identical": "to the same bits",
    "recompute": "makes? anew|made anew|anew",
    "return": "hand(s|ed|ing)? back",
    "ignored, used": "heed(s|ed|ing)?|unheeded",
    "baseline": "twins?",
    "your own": "a person's|of yours",
    "evaluate, score": "judge[sd]?|judging",
    "bidirectional": "(read|reads|lstms?|convlstms?) (them )?both ways",
    "direction of motion": "sets? out",
    "available": "at hand",
    "split, distribute": "deal(s|t) out|carved?",
    "compile-tested only": "not yet run on",
    "from scratch": "from nothing",
    "requires": r"(it|that|this|which) wants|wants (optuna|a gpu)",
    "is not": "is no (picture|flag)|are no (picture|flag)s",
    "so that": "lest",
}
REFUSALS = [
    (re.compile(rf"\b({words})\b", re.IGNORECASE), instead)
    for instead, words in REFUSED.items()
]
# Public names of modules, functions and classes, and what to call them instead.
REFUSED_NAMES = {
    # The core
    "Form": "LoopStrategy",
    "in_pieces": "run_chunked",
    "products": "cpu_matmul",
    "Steps": "ScanInputs, LayerSteps",
    "EveryCarry": "UnrolledWithCarries",
    "directions": "bidirectional",
    "side_by_side": "vmapped",
    "dense_skip": "densely_connected",
    "glorot": "jax.nn.initializers.glorot_uniform",
    "he": "jax.nn.initializers.he_normal",
    "lecun": "jax.nn.initializers.lecun_normal",
    "both_axes": "rows_and_columns",
    # Models, tasks, inspection
    "Reader": "VGSLNet",
    "KrakenReader": "KrakenRecognizer",
    "Norm": "MaskedGroupNorm",
    "Pyramid": "ConvBackbone",
    "Convolutions": "ConvBlock",
    "surely_blank": "mask_to_blank",
    "BoxEmitter": "RecurrentDetector",
    "judging": "error_analysis",
    "precision": "average_precision",
    "intervals": "bootstrap",
    "film": "video_plots",
    "edits": "edit_distance",
    "drawing": "visualization",
    "recognition": "text_recognition",
    "SURE": "SCORE_THRESHOLD",
    "look": "style, explain",
    "follow": "trace",
    "Followed": "Trace",
    "Held": "LayerTrace",
    "findings": "diagnostics",
    "Finding": "Diagnostic",
    "cure": "suggestion",
    "cures": "ablations",
    "health": "summary_figure",
    "reading_gif": "trace_gif",
    # Data, training, experiments
    "deal": "split",
    "carve": "stratified_holdout",
    "take_fold": "select_fold",
    "limited": "subset",
    "stamp": "fingerprint",
    "lent_to_tfds": "tfds_stubs",
    "read_ahead": "prefetch",
    "keep_compiled": "enable_compilation_cache",
    "wait_for_all": "barrier",
    "leave_processes": "abort_process",
    "observe": "callbacks",
    "enough": "epochs_without_improvement",
    "waited": "epochs_without_improvement",
    "rate_factors": "lr_multipliers",
    "by_hand": "shard_map",
    "averaging": "ema",
    "named": "flatten_params",
    "per_dispatch": "steps_per_execution",
    "finder": "dense_prediction",
    "locating": "detection_io",
    "warm": "init_from",
    "restoring": "load_run",
    "measuring": "benchmarks",
    "searching": "tuning",
    "Judged": "Evaluation",
    "Facts": "DataSpec",
    "twin": "baseline",
    "heeded": "used",
    "leave": "save_outputs",
    "judged": "align_targets",
}
# Public parameters, and fields of public classes.
REFUSED_PARAMETERS = REFUSED_NAMES | {
    "apart": "split_gates",
    "kept": "saved",
    "partners": "fused_operand",
    "fresh": "reset_carry",
    "starts": "is_first",
    "truncate": "tbptt_steps",
    "coupled": "cifg",
    "projection": "proj_size",
    "gate": "gate_fn",
    "emits": "sequential",
    "said": "outputs",
    "places": "locations",
    "beams": "beam_width",
    "on_row": "on_log",
    "accumulate": "grad_accum_steps",
    "together": "vmapped",
    "feed": "data_placement",
    "stop_after": "early_stopping_patience",
    "select": "test_checkpoint",
}
for name in ("precision", "intervals", "directions", "named"):
    del REFUSED_PARAMETERS[name]  # of numbers, of confidence, of a network, of a plot
MODULES = [
    path for name in ("lstm_jax", "experiments") for path in (ROOT / name).rglob("*.py")
]
COMMANDS = [
    *([name] for name in ("predict", "report", "sweep", "export")),
    *(
        ["benchmark", name]
        for name in (
            "layers",
            "speed",
            "accuracy",
            "memory",
            "ablations",
            "compile",
            "text-recognition",
        )
    ),
]


def without_code(text: str) -> str:
    """A page whose blocks of code are blank lines."""
    return re.sub(
        r"^```.*?^```|^    .*?$",
        lambda code: "\n" * code[0].count("\n"),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def refused(text: str) -> list[str]:
    """The refused words of a text, with what to write instead."""
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "]", " ".join(text.split()))
    return [
        f"{found[0]!r}: write {instead!r}"
        for pattern, instead in REFUSALS
        for found in pattern.finditer(text)
    ]


def public_names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names of functions and classes of a module; their parameters and fields."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    names, parameters, scopes = set(), set(), [tree]
    while scopes:
        for node in scopes.pop().body:
            if isinstance(node, ast.AnnAssign):
                parameters.add(ast.unparse(node.target))
            if not isinstance(node, functions | ast.ClassDef):
                continue
            if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
                continue
            names.add(node.name)
            if isinstance(node, ast.ClassDef):
                scopes.append(node)
            else:
                every = ast.walk(node.args)
                parameters |= {x.arg for x in every if isinstance(x, ast.arg)}
    return names, parameters


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_the_fields_terms(path):
    names, parameters = public_names(ast.parse(path.read_text()))
    found = [
        f"{name}: use {refused[name]}"
        for own, refused in (
            ({path.stem} | names, REFUSED_NAMES),
            (parameters, REFUSED_PARAMETERS),
        )
        for name in sorted(own & refused.keys())
    ]
    assert not found


def test_public_names_are_found():
    source = """
class Reader(NamedTuple):
    kept: int
    def follow(self, *, beams): ...
def leave(cut, *starts, **feed): ...
def _carve(emits): ...
"""
    names, parameters = public_names(ast.parse(source))
    assert names == {"Reader", "follow", "leave"}
    assert parameters == {"kept", "self", "beams", "cut", "starts", "feed"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_the_fields_terms(page):
    assert not refused(without_code(page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_has_lines_of_readable_width(page):
    lines = without_code(page.read_text()).split("\n")
    long = [
        f"{number}: {len(line)} characters"
        for number, line in enumerate(lines, 1)
        if len(line) > WIDTH and not re.match(r"\||<", line) and "](" not in line
    ]
    assert not long


def test_the_changelog_uses_the_fields_terms():
    assert not refused((ROOT / "CHANGELOG.md").read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_comments_docstrings_and_messages_use_the_fields_terms(path):
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    found = [
        f"line {token.start[0]}: {words}"
        for token in tokenize.generate_tokens(StringIO(path.read_text()).readline)
        if token.type in kinds and " " in token.string
        for words in refused(token.string)
    ]
    assert not found


@pytest.mark.parametrize("name", PRESETS)
def test_the_help_of_train_uses_the_fields_terms(name, capsys):
    with pytest.raises(SystemExit):
        flags.read(preset(name), ["--help"], prog="train", description="")
    assert not refused(capsys.readouterr().out)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_other_commands_uses_the_fields_terms(words, capsys):
    command, *rest = words
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{command}").main([*rest, "--help"])
    text = re.sub(r"[─-╿]", " ", capsys.readouterr().out)
    assert len(text) > 200
    assert not refused(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two films of a\nfinder", 2),
        ("the film.gif of `films/`", 1),
        ("in words\nwhat ails it", 2),
        ("A warm start needs twinned [pages](films.md)", 0),
    ],
)
def test_refused_words_are_found_over_line_ends_and_not_in_code(text, found):
    assert len(refused(text)) == found
