"""The public surface: pinned, small, documented, and proved by values that our own code did not produce."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import inscape
from inscape.errors import InscapeError, InscapeWarning

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


@cache
def _api():
    spec = importlib.util.spec_from_file_location("inscape_public_api", HERE / "api.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_surface_is_the_one_on_record():
    # In a process of its own: run-time type checks, which pytest switches on, wrap functions.
    done = subprocess.run([sys.executable, str(HERE / "api.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    actual, recorded = done.stdout.splitlines(), (HERE / "api.txt").read_text().splitlines()
    gone, new = sorted(set(recorded) - set(actual)), sorted(set(actual) - set(recorded))
    assert actual == recorded, (
        "the public surface changed. If that is meant: `make api`, and a line in CHANGELOG.md.\n- "
        + "\n- ".join(gone)
        + "\n+ "
        + "\n+ ".join(new)
    )


def test_the_top_level_is_small_and_loads():
    assert len(inscape.__all__) <= 30
    assert sorted(inscape.__all__) == sorted(["__version__", *inscape._HOMES, *inscape._ROOMS])
    for name in inscape.__all__:
        assert getattr(inscape, name) is not None


def test_no_function_takes_more_than_six_positional_parameters():
    long: list[str] = []
    for path, value in _api().public().items():
        functions = [(path, value)]
        if inspect.isclass(value):
            functions = [
                (f"{path}.{name}", member) for name, member in vars(value).items() if inspect.isfunction(member) and name[0] != "_"
            ]
        for name, function in functions:
            if inspect.isfunction(function):
                kinds = [
                    p for p in inspect.signature(function).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
                ]
                if len([p for p in kinds if p.name not in ("self", "cls")]) > 6:
                    long.append(name)
    assert not long, f"more than six positional parameters: {long}"


def test_every_public_name_says_what_it_is():
    silent: list[str] = []
    for path, value in _api().public().items():
        if not (inspect.isclass(value) or callable(value)):
            continue
        doc = value.__dict__.get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
        if not doc or len(doc.split()) < 3:
            silent.append(path)
        if inspect.isclass(value):
            silent += [
                f"{path}.{name}"
                for name, member in vars(value).items()
                if name[0] != "_"
                and (inspect.isfunction(member) or isinstance(member, property))
                and not inspect.getdoc(getattr(value, name))
            ]
    assert not silent, f"no docstring: {silent}"


def _entries(path: Path) -> dict[str, dict[str, str]]:
    return tomllib.loads(path.read_text())


def test_every_public_name_has_a_status_and_a_page():
    """docs/status.toml: name = { status = "stable" | "provisional", page = "the page that explains it" }."""
    table = _entries(ROOT / "docs" / "status.toml")
    names = set(_api().public())
    assert set(table) == names, f"missing: {sorted(names - set(table))}; gone: {sorted(set(table) - names)}"
    for name, entry in table.items():
        assert entry["status"] in ("stable", "provisional"), name
        page = ROOT / "docs" / f"{entry['page']}.md"
        assert page.exists() or entry["page"] == "measures/index", f"{name}: no page {page}"
        if page.exists():
            assert name.rsplit(".", 1)[1] in page.read_text(), f"{name} does not appear in {page.relative_to(ROOT)}"


def test_every_error_has_a_page_with_symptom_cause_and_fix():
    _api().public()  # imports every room, and with them every error
    kinds: list[type] = [InscapeWarning]
    todo: list[type] = [InscapeError]
    while todo:
        children = [kind for kind in todo.pop().__subclasses__() if kind.__module__.startswith("inscape.")]
        kinds += children
        todo += children
    assert len(kinds) >= 11
    for kind in kinds:
        page = ROOT / "docs" / "errors" / f"{kind.__name__}.md"
        text = page.read_text()
        assert text.startswith(f"# {kind.__name__}\n")
        for part in ("## Symptom", "## Cause", "## Fix"):
            assert part in text, f"{page.name} lacks {part}"
        if issubclass(kind, InscapeError):
            assert len(kind.__mro__) > 4, f"{kind.__name__} must also be a built-in error"


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_every_public_name_is_proved_by_an_independent_value():
    """tests/arch/proofs.toml: for each name a test, "file::function", and the source of the value that it expects.

    The value must come from elsewhere than the code under test: another library, arithmetic in the test, a published number, or a
    hand-written PyTorch hook.
    """
    proofs = _entries(HERE / "proofs.toml")
    names = {name for name, value in _api().public().items() if callable(value)}
    names |= {f"measure {name}" for name in inscape.measures.names()} | {f"edit {name}" for name in inscape.edits.registered()}
    names |= {f"dictionary {name}" for name in inscape.dictionaries.registered()}
    assert set(proofs) == names, f"without a proof: {sorted(names - set(proofs))}; gone: {sorted(set(proofs) - names)}"
    wrong: list[str] = []
    for name, proof in proofs.items():
        file, _, function = proof["test"].partition("::")
        path = ROOT / file
        if not path.exists() or function.split("[")[0].split("::")[-1] not in _functions(path):
            wrong.append(f"{name}: no test {proof['test']}")
        elif not proof["source"].strip():
            wrong.append(f"{name}: say where the value comes from")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["capture", "measure", "compare", "open", "load", "edit", "report", "plan"])
def test_the_verbs_are_functions(name: str):
    assert callable(getattr(inscape, name))
