"""What the tree of files must look like."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 500
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc", "jobs", "tools"}


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository with one of these suffixes: what git knows, plus what it would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        files = [ROOT / line for line in listed.stdout.splitlines()]
    else:  # an unpacked source archive
        files = [path for path in ROOT.rglob("*") if not {".venv", ".venvs", ".git", "runs", "_build"} & set(path.parts)]
    return [path for path in files if path.is_file() and (not suffixes or path.suffix in suffixes)]


def test_no_file_is_longer_than_one_reads_at_a_sitting():
    long = {str(path.relative_to(ROOT)): count for path in tracked(".py") if (count := len(path.read_text().splitlines())) > LIMIT}
    assert not long, f"split these files (limit {LIMIT} lines): {long}"


def test_no_file_is_named_after_nothing():
    bad = [str(path.relative_to(ROOT)) for path in tracked(".py") if FORBIDDEN & {path.stem, *path.relative_to(ROOT).parts[:-1]}]
    assert not bad, f"name these files after what is in them: {bad}"


def test_every_folder_of_the_package_says_what_it_is():
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src" / "inscape").rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_nothing_names_a_path_of_one_machine():
    pattern = re.compile(r"(?<![\w.:/])/(?:home|Users|root|work|mnt|opt|tmp/w)/[A-Za-z0-9_.-]+|[A-Z]:\\\\Users")
    found: list[str] = []
    for path in tracked(".py", ".md", ".toml", ".txt", ".json", ".cff", ".yml", ".css", ".js", ""):
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group(0)}")
    assert not found, "\n".join(found)


# The one file that may read what `torch.save` wrote: dictionaries of other libraries, with `weights_only=True` written out in the call.
TORCH_FILES = "src/inscape/dictionaries/files.py"
# The one file that may write such a file, of tensors alone, for a library that reads no other weights.
FOR_OTHERS = "src/inscape/dictionaries/formats/dictionary_learning.py"


def _reads_tensors_only(node: ast.AST) -> bool:
    """Whether a node is `torch.load(…, weights_only=True)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "load"
        and any(word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True for word in node.keywords)
    )


def test_no_pickle_is_read_or_written():
    bad: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text())
        allowed: set[int] = set()
        if path.relative_to(ROOT).as_posix() == TORCH_FILES:
            allowed = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _reads_tensors_only(node)}
        if path.relative_to(ROOT).as_posix() == FOR_OTHERS:
            allowed = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "save"}
        for node in ast.walk(tree):
            if id(node) in allowed:
                continue
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                names = ["pickle"] if node.attr in {"load", "save"} else []
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                names = ["pickle"] if not (isinstance(node.value, ast.Constant) and node.value.value is False) else []
            if {"pickle", "cPickle", "dill", "cloudpickle", "joblib"} & {name.split(".")[0] for name in names}:
                bad.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', node)}")
    assert not bad, bad


def test_torchvision_is_absent():
    # Its wheels for the tested torch fail at import, and a broken one breaks the lazy imports of transformers.
    assert find_spec("torchvision") is None
    wanted = re.compile(r"^\s*\"?(torchvision|timm)\b(?!\".msg)", re.MULTILINE)
    assert [path for path in tracked(".toml", ".txt") if wanted.search(path.read_text())] == []


def test_every_pip_call_is_held_to_the_tested_torch():
    loose: list[str] = []
    for path in (ROOT / "Makefile", ROOT / ".ci" / "run"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"\bpip\b.*\binstall\b", line) and "constraints/cpu.txt" not in line:
                loose.append(f"{path.name}:{number}: {line.strip()}")
    assert not loose, loose


QUARANTINE_CALLS = {"skip", "skipif", "xfail", "importorskip"}


def _quarantined(path: Path) -> int:
    """How many skips and expected failures a test file holds: calls and marks of pytest, found in its syntax tree."""
    count = 0
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in QUARANTINE_CALLS:
            root: ast.expr = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            count += isinstance(root, ast.Name) and root.id == "pytest"
    return count


def test_every_skip_has_its_row():
    rows = re.findall(r"^\| `(tests/[^`]+)` \| (\d+) \| (.+?) \| (.+?) \|$", (ROOT / "tests" / "QUARANTINES.md").read_text(), re.MULTILINE)
    listed = {path: int(count) for path, count, *_ in rows}
    actual = {
        path.relative_to(ROOT).as_posix(): count
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and (count := _quarantined(path))
    }
    assert listed == actual, (
        "tests/QUARANTINES.md must list every skip, skipif, xfail and importorskip: | `file` | how many | why | ends when |"
    )


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "Makefile"])
def test_the_repository_holds(name: str):
    assert (ROOT / name).stat().st_size > 0


def test_the_root_stays_small():
    entries = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert len(entries) <= 16, sorted(entries)
