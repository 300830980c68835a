"""The project speaks the field's language: private names and metaphors of earlier versions do not come back.

`python tests/test_words.py` lists every place.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "multihmr"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "_deprecated.py")
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "weights").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.py")),
]

# names that nothing in the package may have -> what it is called instead
NAMES = {
    "Window": "Letterbox or CropTransform",
    "Photo": "LoadedImage",
    "Seen": "Detections, EncodedBatch or TrackState",
    "stand": "assemble",
    "nobody": "empty",
    "Nobody": "BackgroundImages",
    "everybody_once": "merge_tiles",
    "different_people": "nms_3d",
    "different_slots": "nms_3d_fixed",
    "apart": "nms_3d_distance",
    "silenced": "mask_invalid",
    "Slots": "FixedCenters",
    "best_cells": "topk_centers",
    "_see": "_encode",
    "_regress": "_decode",
    "_answer": "_refine_and_assemble",
    "_rule": "_nms_args",
    "Guess": "CoarseParams",
    "JointReader": "JointHead",
    "glance": "global_stage",
    "look_again": "local_stage",
    "speak": "decode",
    "Answer": "GLNetOutput",
    "Meaning": "DecodedParams",
    "gaze": "crop_rotation",
    "Contest": "EvaluationRun",
    "OwnReferee": "Evaluator",
    "Referee": "Evaluator",
    "Judge": "Evaluator",
    "Contender": "Config",
    "Trial": "Run",
    "Asked": "Request",
    "Said": "GLNetOutputs",
    "Known": "ValidMask",
    "Journal": "Logger",
    "Processes": "Distributed",
    "Stream": "TrainDataset",
    "Unusable": "BadSample",
    "Reader": "PoseDataset",
    "About": "DatasetInfo",
    "Desk": "ResultWriter",
    "Attempts": "RetryTracker",
    "mend": "repair",
    "door": "command_module",
    "sentence": "format_error",
    "_DOORS": "_LAZY_EXPORTS",
    "Visit": "Session",
    "Look": "PredictOptions",
    "Film": "VideoResult",
}
# plain words, which are wrong as names in some files alone: file or folder -> names
NAMES_IN = {
    "networks/glnet": {"see", "around"},
    "networks/multihmr": {"fixed"},
    "networks/base.py": {"places"},
    "model/": {"places"},
    "preprocessing/letterbox.py": {"picture", "pixels", "released"},
    "data/": {"see", "cover"},
    "training/validity_masks.py": {"fill"},
    "training/config.py": {
        "backbone_lr",
        "ema",
        "clip",
        "recompute",
        "zoom",
        "person",
        "roll",
        "cover",
        "twins",
    },
}
# in docstrings, comments, texts of errors and help, and on all pages of the documentation -> instead
PROSE = {
    r"(?<![\"'])nobody(?![@\"'])": "no people, without people, or a passive sentence",
    r"journey": "flow, pipeline",
    r"front door|public door|doors?(?= (that|of|opens?)\b)": "public API",
    r"(the|this|whole) house": "the package",
    r"corridor": "",
    r"second look|looks? again|look closer|looks closer": "local refinement, local stage, tiles",
    r"at a glance|one glance": "global stage",
    r"looks? at each other|thinks? by itself": "self-attention, MLP",
    r"(has|have) no eye|has an eye": "does not predict",
    r"strangers?": "untrusted",
    r"referees?|contenders?": "evaluator, configuration",
    r"everybody once": "merged tiles",
    r"passers-by": "other people in the crop",
    r"somebody|everybody(?!`)|whoever": "a person, all people",
    r"stood up again|stands? up again": "posed",
    r"\w*reader of joints|joint reader|reads? joints off|read off the patches": "joint heatmap head",
    r"(?<![-\"])twins": "paired crops",
}
# calls and options as they are not written any more -> instead
PAST = {
    r"load_model\([^)\n]*\bhalf=": "dtype=",
    r"--backbone-lr(?![\w-])": "--backbone-lr-scale",
    r"--ema(?![\w-])": "--ema-decay",
    r"--clip(?![\w-])": "--grad-clip-norm",
    r"--recompute(?![\w-])": "--gradient-checkpointing",
    r"--zoom(?![\w-])": "--focal-jitter-prob",
    r"--person(?![\w-])": "--person-crop-prob",
    r"--roll(?![\w-])": "--rotation-prob",
    r"--cover(?![\w-])": "--occlusion-prob",
    r"--twins(?![\w-])": "--paired-crops",
    r"humans\.to\(\"": "humans.in_frame(",
}
_PROSE = [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), to) for pattern, to in PROSE.items()]
_PAST = [(re.compile(pattern), to) for pattern, to in PAST.items()]


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of all that a module defines: classes, functions, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias):
            yield node.lineno, node.asname or node.name.rpartition(".")[2]


def prose(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the comments and strings of a module, docstrings included."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            for place, line in enumerate(token.string.splitlines()):
                yield token.start[0] + place, line


def in_text(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for number, line in lines:
        for pattern, instead in (*_PROSE, *_PAST):
            for found in pattern.finditer(line):
                yield f"{number}: {found[0]!r} in text" + (f"; say: {instead}" if instead else "")


def in_source(path: Path) -> list[str]:
    """Where a module has a private word, as "LINE: what, and what to write instead"."""
    text = path.read_text(encoding="utf-8")
    own = path.relative_to(PACKAGE).as_posix()
    here = {name for start, some in NAMES_IN.items() if own.startswith(start) for name in some}
    found = []
    for line, name in names(ast.parse(text)):
        if name in NAMES:
            found.append(f"{line}: name {name!r}; call it: {NAMES[name]}")
        elif name in here:
            found.append(f"{line}: name {name!r} means something else here")
    return found + list(in_text(prose(text)))


def in_page(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":  # names old spellings where it tells what they became
        text = re.sub(r"`[^`\n]*`", "", text)
    return list(in_text(enumerate(text.splitlines(), 1)))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_have_no_private_words(path: Path) -> None:
    assert not in_page(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_sources_have_no_private_words(path: Path) -> None:
    assert not in_source(path)


def test_the_patterns_find_what_they_should_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Nobody is here.\nA journey.\nload_model('x', half=True)\n--ema 0.9 --clip\n", encoding="utf-8"
    )
    assert [hit.partition(" ")[0] for hit in in_page(page)] == ["1:", "2:", "3:", "4:", "4:"]
    page.write_text(
        "We see people around a table; fill the form. save_model(half=True) --ema-decay 0.9\n",
        encoding="utf-8",
    )
    assert not in_page(page)


if __name__ == "__main__":
    for path in (*PAGES, *SOURCES):
        for hit in in_source(path) if path in SOURCES else in_page(path):
            print(f"{path.relative_to(ROOT)}:{hit}")
