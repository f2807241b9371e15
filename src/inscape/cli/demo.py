"""`inscape demo`: a first report, on tiny models or on the user's own."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from inscape.cli.output import Json, command_line, say


def demo(
    *,
    model: str | None = None,
    texts: str | None = None,
    out: str = "runs/demo",
    seed: int = 0,
    small: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> int:
    """Train tiny models, or take yours, and write a first report.

    Args:
        model: Hugging Face id or folder of a text model to read instead.
        texts: file with one text a line, or a table with a column "text", for that model.
        out: folder for the report, the results and the stores.
        seed: of training and inference.
        small: a fraction of the size, to see that it runs.
        json: print JSON; progress goes to the error stream.
    """
    from inscape.demo import run_demo

    # The demo tells its story line by line and ends with the next commands itself.
    tell = (lambda line: print(line, file=sys.stderr, flush=True)) if json else (lambda line: print(line, flush=True))
    page = run_demo(out, model=model, texts=texts, seed=seed, small=small, progress=tell)
    if json:
        say("", {"report": str(page), "bytes": page.stat().st_size}, following=command_line("measures"), as_json=True)
    return 0
