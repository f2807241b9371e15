"""`inscape verify`: every file of a store or result against what it should be."""

from __future__ import annotations

from inscape.cli.output import Json, command_line, say
from inscape.cli.report import saved


def verify(path: str, /, *, json: Json = False) -> int:
    """Check every file of a store against its sum, or that a saved result can be read.

    Args:
        path: folder of a store or result.
        json: print JSON.
    """
    from inscape.results import Result

    found = saved(path)
    if isinstance(found, Result):
        say(
            f"{path}: a result of {len(found)} rows, readable",
            {"path": path, "problems": []},
            following=command_line("report", path),
            as_json=json,
        )
        return 0
    problems: list[str] = found.verify()
    damaged = problems if found.complete else problems[1:]
    payload = {"path": path, "complete": found.complete, "problems": problems, "shards": len(found.manifest.shards)}
    if not problems:
        text = f"{path}: {len(found.manifest.shards)} shards of {len(found.sites)} sites, every sum as recorded"
        say(text, payload, following=command_line("measure", path, "effective_rank", "two_nn"), as_json=json)
        return 0
    say("\n".join(problems), payload, following=command_line("capture", "MODEL", "STIMULI", to=path), as_json=json)
    return 1 if damaged else 3
