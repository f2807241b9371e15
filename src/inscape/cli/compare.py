"""`inscape compare`: the sites of two stores."""

from __future__ import annotations

from inscape.cli.arguments import memory_text, number_or_word, read_measures
from inscape.cli.measure import finish
from inscape.cli.output import Json, command_line


def compare(
    a: str,
    b: str,
    /,
    *measures: str,
    out: str | None = None,
    pairs: str = "all",
    interval: str = "auto",
    groups: str | None = None,
    null: str | None = None,
    draws: int = 200,
    correction: str = "max",
    level: float = 0.95,
    repeats: str | None = None,
    on: str | None = None,
    sample: int | None = None,
    memory: str = "4GB",
    seed: int = 0,
    json: Json = False,
) -> int:
    """Compare the sites of two stores, rows paired by stimulus.

    Args:
        a: folder of a store.
        b: folder of the second store; the same one to compare a store's sites with each other.
        measures: names of measures of a pair, with options in brackets: mutual_knn(k=20).
        out: folder to save the result in.
        pairs: all, diagonal, or kind (names that differ in numbers alone).
        interval: auto, jackknife, a number of groups, or none.
        groups: column whose equal values are dependent rows.
        null: permute, to break the pairing of rows.
        draws: permutations.
        correction: of p over pairs: max, holm, bh or none.
        level: coverage of the intervals.
        repeats: mean, split or all, where stimuli were shown several times.
        on: intersection, to compare the stimuli that both have.
        sample: most rows to compare.
        memory: most memory to use.
        seed: of groups, permutations and sample.
        json: print JSON.
    """
    from inscape.measures.verbs import compare as run
    from inscape.store import open as open_store

    chosen = read_measures(measures)
    first = open_store(a)
    result = run(
        first,
        first if a == b else open_store(b),
        chosen,
        pairs=pairs,
        interval=number_or_word(interval),
        groups=groups,
        null=None if null == "none" else null,
        draws=draws,
        correction=None if correction == "none" else correction,
        level=level,
        repeats=repeats,
        on=on,
        sample=sample,
        memory=memory_text(memory),
        seed=seed,
    )
    options: dict[str, object] = {"groups": groups, "null": null, "repeats": repeats, "on": on, "sample": sample, "out": out}
    defaults = {"pairs": (pairs, "all"), "interval": (interval, "auto"), "draws": (draws, 200), "correction": (correction, "max")}
    defaults |= {"level": (level, 0.95), "seed": (seed, 0)}
    options |= {name: value for name, (value, default) in defaults.items() if value != default}
    return finish(result, command_line("compare", a, b, *measures, **options), out, as_json=json)
