"""No text that users read names an owner, an address or a task that is still to be filled in."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ = {
    ".md", ".ipynb", ".cff", ".yml", ".yaml", ".toml", ".cfg", ".css", ".js", ".svg", ".py", ".cpu", ".cuda",
}  # fmt: skip
# Forms of an argument, as "hf:owner/repo", are none: they are no address to go to.
PLACEHOLDER = re.compile(
    r"\b(?-i:OWNER)\b|<(?:owner|user(?:name)?|org(?:anization)?|your[-_ ]\w+|yyyy)>"
    r"|\byour[-_](?:name|org|user(?:name)?|repo|account)\b"
    r"|github\.com/(?:user(?:name)?|owner|org|your\w*|me)/|https?://(?:www\.)?example\.(?:com|org|net)"
    r"|\b(?-i:TODO|FIXME|TBD|XXX)\b|lorem ipsum",
    re.IGNORECASE,
)
LEFT_OPEN = (
    "github.com/OWNER/multihmr", "<your name>", "https://github.com/username/x", "http://example.com/a",
    "# TODO: url",
)  # fmt: skip
NONE = ("hf:owner/repo", "the copyright owner", "your name", "[owner]", "github.com/naver/anny")


def files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    paths = [ROOT / name for name in names] or [path for path in ROOT.rglob("*") if ".git" not in path.parts]
    own = ("tests", ".venv", "build")
    return [p for p in paths if p.suffix in READ and p.is_file() and p.relative_to(ROOT).parts[0] not in own]


def text_of(path: Path) -> str:
    """What is read of a file; of a notebook its cells, without the bytes of pictures."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def test_nothing_is_left_to_be_filled_in() -> None:
    paths = files()
    names = {path.name for path in paths}
    assert {"README.md", "1_first_steps.ipynb", "CITATION.cff", "setup.cfg", "app.js", "mkdocs.yml"} <= names
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in paths
        if (match := PLACEHOLDER.search(text_of(path)))
    }
    assert found == {}


@pytest.mark.parametrize("text", LEFT_OPEN)
def test_placeholders_are_recognised(text: str) -> None:
    assert PLACEHOLDER.search(text)


@pytest.mark.parametrize("text", NONE)
def test_forms_of_arguments_are_none(text: str) -> None:
    assert not PLACEHOLDER.search(text)
