"""Writes the pages that follow from the code: one per measure, their table, the gallery, and the reference of every public name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LISTS = ("Args", "Attributes", "Raises", "Returns", "Yields")
TEXTS = ("Source", "Cost", "Bias", "Note")
CODE = ("Example", "Examples")


def api() -> Any:
    """tests/arch/api.py, where what counts as public is decided once."""
    spec = importlib.util.spec_from_file_location("inscape_public_api", ROOT / "tests" / "arch" / "api.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def escaped(text: str) -> str:
    """Text as Markdown in which only back-ticked words and mathematics, as $…$ or \\(…\\), are marked up."""
    out: list[str] = []
    for part in re.split(r"(`+[^`]+`+|\\\(.+?\\\)|\$[^$]+\$)", text, flags=re.DOTALL):
        if part.startswith("`"):
            out.append(part)
        elif part.startswith((r"\(", "$")) and len(part) > 2:
            inside = part.strip("$") if part[0] == "$" else part[2:-2]
            inside = inside.replace(r"\|", r"\Vert ").replace("|", r"\vert ")  # a bar would end the cell of a table
            out.append(f"${' '.join(inside.split())}$")
        else:
            out.append(re.sub(r"([*<>$\\])", r"\\\1", part))
    return "".join(out)


def cell(text: str) -> str:
    """Text for a table, where a bar would end the cell."""
    return escaped(" ".join(text.split())).replace("|", "\\|")


def sections(doc: str) -> list[tuple[str, str]]:
    """A Google-style docstring as (heading, body) pairs, the first with an empty heading."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in inspect.cleandoc(doc).splitlines():
        match = re.fullmatch(r"(\w+):(.*)", line)
        if match and match.group(1) in (*LISTS, *TEXTS, *CODE):
            found.append((match.group(1), [match.group(2)] if match.group(2).strip() else []))
        else:
            found[-1][1].append(line)
    return [(heading, textwrap.dedent("\n".join(body)).strip("\n")) for heading, body in found]


def items(body: str) -> Iterable[str]:
    """The entries of an Args-like section: a line that starts at the margin opens one, indented lines continue it."""
    entry: list[str] = []
    for line in body.splitlines():
        if line and not line[0].isspace() and entry:
            yield " ".join(entry)
            entry = []
        if line.strip():
            entry.append(line.strip())
    if entry:
        yield " ".join(entry)


def markdown(doc: str) -> str:
    """A docstring as Markdown."""
    out: list[str] = []
    for heading, body in sections(doc):
        if not body.strip():
            continue
        if heading:
            out.append(f"**{heading}**\n")
        if heading in CODE or ">>>" in body:
            plain, _, code = body.partition(">>>")
            if plain.strip():
                out.append(escaped(plain.strip()) + "\n")
            code = textwrap.dedent((">>>" + code) if code else "")
            code = "\n".join(line.split("# doctest:")[0].rstrip() for line in code.splitlines())
            out.append(f"```pycon\n{code.strip()}\n```\n")
        elif heading in LISTS:
            for entry in items(body):
                name, colon, text = entry.partition(": ")
                named = colon and re.fullmatch(r"\*{0,2}[\w., *]+(\([^)]*\))?", name)
                out.append(f"- `{name}`: {escaped(text)}" if named else f"- {escaped(entry)}")
            out.append("")
        else:
            out.append(escaped(body) + "\n")
    return "\n".join(out)


def wrapped(name: str, signature: str) -> str:
    """A signature, one parameter a line when it is long."""
    if len(name + signature) <= 100:
        return name + signature
    depth, pieces, current = 0, [], ""
    inside, _, after = signature[1:].rpartition(")")
    for letter in inside:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            pieces.append(current.strip())
            current = ""
        else:
            current += letter
    pieces.append(current.strip())
    return f"{name}(\n    " + ",\n    ".join(pieces) + f",\n){after}"


def measure_page(row: dict[str, Any], doc: str) -> str:
    """The page of one measure: what its docstring says, then what it declares."""
    facts = {
        "of": row["arity"] + (", with labels" if row["labels"] else ""),
        "range": row["range"],
        "a higher value": row["higher"],
        "does not change under": ", ".join(row["invariant"]) or "nothing declared",
        "changes under": ", ".join(row["sensitive"]) or "nothing declared",
        "computed from": ", ".join(f"`{name}`" for name in row["needs"]),
        "options": ", ".join(f"`{key}={value!r}`" for key, value in row["options"].items()) or "none",
        "source": row["source"],
        "status": row["status"],
    }
    lines = [f"# {row['name']}", "", markdown(doc), "", "| | |", "| --- | --- |"]
    lines += [f"| {key} | {cell(value) if '`' not in value else value} |" for key, value in facts.items()]
    return "\n".join(lines) + "\n"


def measures(folder: Path) -> None:
    """The table of all measures and a page for each."""
    from inscape.measures import get, table
    from inscape.measures.facts import TRANSFORMATIONS

    folder.mkdir(parents=True, exist_ok=True)
    rows = table()
    for row in rows:
        (folder / f"{row['name']}.md").write_text(measure_page(row, get(row["name"]).doc))
    lines = ["# The measures", "", "Written from the registry; `inscape measures` prints the same list.", ""]
    for title, arity in (("Of one system", "one system"), ("Of a pair", "a pair")):
        lines += [
            f"## {title}",
            "",
            "| measure | what it is | range | higher means | does not change under |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in rows:
            if row["arity"] == arity:
                cells = [cell(row["what"]), cell(row["range"]), cell(row["higher"]), ", ".join(row["invariant"])]
                lines.append(f"| [{row['name']}]({row['name']}.md) | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["## The words for what a measure ignores", "", "| word | the transformation |", "| --- | --- |"]
    lines += [f"| {word} | {cell(meaning)} |" for word, meaning in TRANSFORMATIONS.items()]
    lines += ["", "```{toctree}", ":hidden:", "", *(row["name"] for row in rows), "```", ""]
    (folder / "index.md").write_text("\n".join(lines))


def reference(path: Path) -> None:
    """Every public name with its status, its signature and its docstring."""
    surface = api()
    status = tomllib.loads((ROOT / "docs" / "status.toml").read_text())
    lines = [
        "# Reference",
        "",
        "Every public name. *Stable* names change only by the rules of deprecation; *provisional* ones may change in any",
    ]
    lines += ["minor version.", ""]
    for name, value in surface.public().items():
        entry = status.get(name, {"status": "provisional", "page": "index"})
        lines += [f"## {name}", "", f"*{entry['status']}* · explained in [{entry['page']}](../{entry['page']}.md)", ""]
        if callable(value):
            signature = "" if inspect.isclass(value) and issubclass(value, Exception) else surface.signature(value)
            lines += ["```python", wrapped(name, signature), "```", ""]
        lines += [markdown(inspect.getdoc(value) or "") if callable(value) else f"A value of type `{type(value).__name__}`.", ""]
        if inspect.isclass(value) and not issubclass(value, Exception):
            for member, signature in sorted(surface.members(value)):
                doc = inspect.getdoc(getattr(value, member, None)) or ""
                first = " ".join(sections(doc)[0][1].split("\n\n")[0].split()) if doc else ""
                lines.append(f"- `.{member}{signature}`" + (f": {escaped(first)}" if first else ""))
            lines.append("")
    path.write_text("\n".join(lines))


def gallery(path: Path) -> None:
    """The page of the studies; `studies` lies beside the package and is found from the root of the repository."""
    sys.path.insert(0, str(ROOT))
    try:
        page = importlib.import_module("studies.page")
    finally:
        sys.path.remove(str(ROOT))
    path.write_text(page.markdown())


def write(folder: Path) -> None:
    """All generated pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*.md"):
        old.unlink()
    measures(folder / "measures")
    gallery(folder / "gallery.md")
    reference(folder / "reference.md")
