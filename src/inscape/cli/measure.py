"""`inscape measure`: every site of a store."""

from __future__ import annotations

from inscape.cli.arguments import memory_text, number_or_word, read_measures
from inscape.cli.output import Json, command_line, say


def measure(
    store: str,
    /,
    *measures: str,
    out: str | None = None,
    sites: str | None = None,
    labels: str | None = None,
    interval: str = "auto",
    groups: str | None = None,
    null: str | None = None,
    draws: int = 200,
    correction: str = "max",
    level: float = 0.95,
    memory: str = "4GB",
    seed: int = 0,
    json: Json = False,
) -> int:
    """Measure every site of a store: one number with its interval per site and measure.

    Args:
        store: folder of a store.
        measures: names, with options in brackets: effective_rank mle_dimension(k=10).
        out: folder to save the result in.
        sites: only the sites that match this glob.
        labels: column with the classes, for measures that need them.
        interval: auto, jackknife, a number of groups, or none.
        groups: column whose equal values are dependent rows.
        null: permute, to shuffle labels.
        draws: permutations.
        correction: of p over sites: max, holm, bh or none.
        level: coverage of the intervals.
        memory: most memory to use.
        seed: of groups and permutations.
        json: print JSON.
    """
    from inscape.measures.verbs import measure as run
    from inscape.store import open as open_store

    chosen = read_measures(measures)
    opened = open_store(store)
    result = run(
        opened.select(sites) if sites else opened,
        chosen,
        labels=labels,
        interval=number_or_word(interval),
        groups=groups,
        null=None if null == "none" else null,
        draws=draws,
        correction=None if correction == "none" else correction,
        level=level,
        memory=memory_text(memory),
        seed=seed,
    )
    options: dict[str, object] = {"sites": sites, "labels": labels, "groups": groups, "null": null, "out": out}
    defaults = {"interval": (interval, "auto"), "draws": (draws, 200), "correction": (correction, "max"), "level": (level, 0.95)}
    options |= {name: value for name, (value, default) in (defaults | {"seed": (seed, 0)}).items() if value != default}
    return finish(result, command_line("measure", store, *measures, **options), out, as_json=json)


def finish(result: object, command: str, out: str | None, *, as_json: bool) -> int:
    """Saves and prints a result; the exit code is 1 when not one number came out."""
    from inscape.results import Result

    if not isinstance(result, Result):
        raise TypeError(f"expected a Result, got {type(result).__name__}")
    result.settings["command"] = command
    if out is not None:
        result.save(out)
    following = command_line("report", out, to=f"{out}.html") if out else f"{command} --out runs/result"
    payload = {"rows": result.rows(), "settings": result.settings, "out": out}
    say(repr(result), payload, following=following, as_json=as_json)
    return 0 if any(row["status"] == "ok" for row in result.rows()) else 1
