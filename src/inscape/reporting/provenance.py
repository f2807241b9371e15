"""Where the numbers come from: stores with their hashes, settings, versions, and the commands that make them again."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from inscape.reporting.parts import folded, plain_table
from inscape.results import Result
from inscape.store import Store

_PACKAGES = ("inscape", "torch", "numpy", "scipy", "transformers", "safetensors", "pyarrow", "matplotlib")


def versions() -> dict[str, str]:
    """The versions of what computes and draws, without importing any of it."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "machine": f"{platform.system()} {platform.machine()}"}


def store_table(stores: Sequence[Store]) -> str:
    """One row per store: what was read, from which model, and the SHA-256 of its manifest, which holds those of its shards."""
    rows: list[list[str]] = []
    for store in stores:
        digest = hashlib.sha256(store.manifest.to_json()).hexdigest()
        rows.append(
            [
                escape(store.system),
                escape(str(store.path or "in memory")),
                f"{store.stimuli.num_rows:,}",
                f"{len(store.sites):,}",
                "yes" if store.complete else "no: run the capture again to finish it",
                f"<code class=hash title={digest}>{digest[:16]}…</code>",
            ]
        )
    table = plain_table(("system", "store", "stimuli", "sites", "complete", "SHA-256 of the manifest"), rows)
    details = "".join(folded(f"How {store.system} was read", _pretty(_reading(store))) for store in stores)
    return table + details


def settings_of(results: Sequence[tuple[str, Result]]) -> str:
    """The settings of every result, by its title."""
    return "".join(folded(f"Settings: {title}", _pretty(result.settings)) for title, result in results if result.settings)


def version_line() -> str:
    """The versions on one line."""
    return "<p class=versions>" + " · ".join(f"{escape(name)} {escape(text)}" for name, text in versions().items()) + "</p>"


def commands(results: Sequence[Result]) -> str:
    """What to type to get these numbers again, as far as the results recorded it."""
    lines = list(dict.fromkeys(str(line) for result in results for line in _commands(result.settings)))
    if not lines:
        return "<p>These results were made in Python without a recorded command; their settings are below.</p>"
    return f"<pre class=commands>{escape(chr(10).join(lines))}</pre>"


def _commands(settings: Mapping[str, Any]) -> list[str]:
    """The command that was recorded, else the one that the settings amount to, else nothing."""
    own = settings.get("command")
    lines = [own] if isinstance(own, str) else [str(line) for line in own or ()] or _composed(settings)
    return lines + [line for part in settings.get("parts", ()) for line in _commands({**settings, "parts": (), **part})]


# options of the verbs that a command line can give, with what they are when left out
_DEFAULTS: dict[str, Any] = {
    "labels": None, "pairs": "all", "interval": "auto", "null": None, "draws": 200, "correction": "max", "level": 0.95, "repeats": None,
    "on": None, "sample": None, "seed": 0,
}  # fmt: skip


def _composed(settings: Mapping[str, Any]) -> list[str]:
    verb, systems = settings.get("verb"), settings.get("systems") or ()
    paths = [system.get("path") for system in systems]
    if verb not in ("measure", "compare") or not paths or None in paths or not isinstance(settings.get("pairs", "all"), str):
        return []
    if verb == "compare" and len(paths) == 1:
        paths *= 2
    words = ["inscape", verb, *paths, *settings.get("measures", ())]
    for name, default in _DEFAULTS.items():
        value = settings.get(name, default)
        if value != default:
            words += [f"--{name}", "none" if value is None else value]
    return [shlex.join(str(word) for word in words)]


def _reading(store: Store) -> dict[str, Any]:
    content = json.loads(store.manifest.to_json())
    return {key: content[key] for key in ("plan", "notes", "sites") if content.get(key)}


def _pretty(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, ensure_ascii=False, default=str))}</pre>"
