"""`inscape trajectory`: the checkpoints of a training run, measured on the same texts."""

from __future__ import annotations

import sys

from inscape.cli.arguments import number_or_word, read_measures
from inscape.cli.measure import finish
from inscape.cli.output import Json, command_line
from inscape.errors import InscapeError


def trajectory(
    folder: str,
    /,
    *measures: str,
    texts: str,
    sites: str = "blocks.*.resid_post",
    tokens: str = "last",
    against: str = "last",
    interval: str = "none",
    out: str | None = None,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Measure every checkpoint in a folder on the same texts, and tell the phases of the effective rank if it was measured.

    Args:
        folder: folder whose subfolders are checkpoints named by their step, such as checkpoint-500.
        measures: names of measures of one system or of a pair; effective_rank and linear_cka_debiased by default.
        texts: text file with one text a line, or a table with a column of texts.
        sites: the layers.
        tokens: which tokens make the rows: last, first, mean or all.
        against: last or previous: which checkpoint measures of a pair compare with.
        interval: auto, a number of groups, or none.
        out: folder to save the result in.
        seed: of the inference.
        json: print JSON.
    """
    from inscape.cli.output import UsageError
    from inscape.training import phases
    from inscape.training import trajectory as run

    chosen = read_measures(measures or ("effective_rank", "linear_cka_debiased"))
    if against not in ("last", "previous"):
        raise UsageError(f"--against {against}: give last or previous")
    options: dict[str, object] = {"sites": sites, "tokens": tokens, "against": against, "interval": number_or_word(interval), "seed": seed}
    result = run(folder, texts, measures=chosen, **options)  # pyright: ignore[reportArgumentType]
    if "effective_rank" in result.unique("measure"):
        try:
            found = phases(result)
        except InscapeError as error:  # the values are there, and are kept
            print(f"no phases: {error}", file=sys.stderr)
            found = []
        result.settings["phases"] = [vars(phase) for phase in found]
        if not json:
            for phase in found:
                print(f"{phase.name}: steps {phase.begin:,} to {phase.end:,}, effective rank × {phase.factor:.2f}")
    command = command_line("trajectory", folder, *measures, texts=texts, sites=sites, tokens=tokens, out=out)
    return finish(result, command, out, as_json=json)
