"""`inscape report`: one page from saved results and stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inscape.cli.output import Json, UsageError, command_line, say


def report(*paths: str, to: str = "report.html", title: str | None = None, json: Json = False) -> int:
    """Write one offline page from saved results; stores among them add where the numbers come from.

    Args:
        paths: folders of results and stores, in the order in which they should be told.
        to: file to write.
        title: of the page.
        json: print JSON.
    """
    from inscape.reporting import report as write

    if not paths:
        raise UsageError("no result was named; give the folders that --out wrote")
    page = write(*[saved(path) for path in paths], to=to, title=title)
    size = page.stat().st_size
    say(f"{page} ({size / 1000:,.0f} kB)", {"report": str(page), "bytes": size}, following=f"python -m webbrowser {page}", as_json=json)
    return 0


def saved(path: str) -> Any:
    """The result, features or store in a folder, told apart by the file that each must have.

    Raises:
        ResultError: the folder is neither.
    """
    from inscape.errors import ResultError

    if "://" in path:  # results are saved in folders; stores may be behind addresses
        from inscape.store import open as open_store

        return open_store(path)
    folder = Path(path)
    if (folder / "settings.json").is_file():
        from inscape.results import Result

        return Result.load(folder)
    if (folder / "features.json").is_file():
        from inscape.dictionaries import Features

        return Features.load(folder)
    if (folder / "manifest.json").is_file():
        from inscape.store import open as open_store

        return open_store(folder)
    there = "there is no such folder" if not folder.is_dir() else "it has neither settings.json nor manifest.json"
    raise ResultError(
        f"{path} is no saved result and no store: {there}; save one with {command_line('measure', 'STORE', 'MEASURE', out=path)}"
    )
