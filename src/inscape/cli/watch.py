"""`inscape watch`: the log of a monitor while it grows."""

from __future__ import annotations

import time

from inscape.cli.output import Json, command_line, say


def watch(log: str, /, *, once: bool = False, interval: float = 2.0, json: Json = False) -> int:
    """Show the log of a monitor in the terminal while training goes on; Ctrl-C ends it.

    Args:
        log: the folder that Monitor(to=...) writes.
        once: print it once and leave.
        interval: seconds between two looks.
        json: print the last values and all alarms as JSON, once.
    """
    from rich.console import Console
    from rich.live import Live

    from inscape.training.log import read_facts, read_rows
    from inscape.training.terminal import log_view

    facts, rows = read_facts(log), read_rows(log)
    if json:
        last = rows[-1]["step"] if rows else None
        kept = ("step", "site", "measure", "value", "baseline", "text")
        alarms = [{name: row[name] for name in kept} for row in rows if row["alarm"]]
        values = [{name: row[name] for name in kept[:5]} for row in rows if row["step"] == last]
        say("", {"system": facts.get("system"), "step": last, "values": values, "alarms": alarms}, as_json=True)
        return 0
    console = Console()
    if once or not console.is_terminal:
        console.print(log_view(facts, rows, columns=console.width))
        print(command_line("watch", log))
        return 0
    with Live(log_view(facts, rows, columns=console.width), console=console, refresh_per_second=4) as live:
        try:
            while True:
                time.sleep(max(0.1, interval))
                live.update(log_view(facts, read_rows(log), columns=console.width))
        except KeyboardInterrupt:  # how one leaves; the log stays whole
            return 0
