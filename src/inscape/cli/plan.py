"""`inscape plan`: what a measurement will cost."""

from __future__ import annotations

from inscape.cli.arguments import memory_text, number_or_word, read_measures
from inscape.cli.output import Json, command_line, say


def plan(
    store: str,
    /,
    *measures: str,
    against: str | None = None,
    pairs: str = "all",
    interval: str = "auto",
    null: str | None = None,
    draws: int = 200,
    memory: str = "4GB",
    json: Json = False,
) -> int:
    """Tell what a measurement will cost, without running it: routes, bytes, passes, time.

    Args:
        store: folder of a store.
        measures: names of measures.
        against: folder of a second store, for measures of a pair.
        pairs: all, or diagonal.
        interval: auto, jackknife, a number of groups, or none.
        null: permute.
        draws: permutations.
        memory: most memory to use.
        json: print JSON.
    """
    from inscape.measures.verbs import plan as run
    from inscape.store import open as open_store

    chosen = read_measures(measures)
    first = open_store(store)
    second = first if against == store else open_store(against) if against else None
    made = run(
        first,
        chosen,
        second,
        pairs=pairs,
        interval=number_or_word(interval),
        null=None if null == "none" else null,
        draws=draws,
        memory=memory_text(memory),
    )
    verb = ("compare", store, against) if against else ("measure", store)
    payload = {"steps": made.rows(), "bytes": made.bytes, "passes": made.passes, "groups": made.groups, "seconds": made.seconds}
    say(str(made), payload, following=command_line(*verb, *measures, out="runs/result"), as_json=json)
    return 0
