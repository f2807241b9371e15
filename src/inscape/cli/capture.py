"""`inscape capture`: a model over stimuli into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from inscape.cli.arguments import memory_text, number_or_word
from inscape.cli.output import Json, command_line, say


def capture(
    model: str,
    stimuli: str,
    /,
    *,
    to: str,
    sites: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    tokens: str = "last",
    special: str = "keep",
    max_length: int | None = None,
    truncation_side: str | None = None,
    generate: int | None = None,
    pack: int | None = None,
    dtype: str | None = None,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    shard_stimuli: int | None = None,
    column: str | None = None,
    label: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    memory: str | None = None,
    part: str | None = None,
    json: Json = False,
) -> int:
    """Run a model over stimuli and write a store; run again after a stop, it resumes.

    Args:
        model: Hugging Face id or folder.
        stimuli: Parquet, CSV, TSV or JSONL table, or a text file with one text a line.
        to: folder of the store.
        sites: names or globs; the residual stream after every block by default.
        tokens: last, first, mean, all, a position, a role of chat messages, generated, or a column of the table.
        special: keep, drop or bos_only: rows of special tokens.
        max_length: most tokens of a text; longer ones are cut and counted.
        truncation_side: right or left: where texts are cut; the tokenizer's own side by default.
        generate: tokens that the model first adds to each text, greedily.
        pack: length of contexts that hold several texts, kept apart.
        dtype: of the stored rows: float32, float16, bfloat16 or auto.
        batch_tokens: most tokens in a batch.
        batch_size: most stimuli in a batch.
        shard_stimuli: stimuli per shard.
        column: column of the table that holds the stimulus.
        label: name of the system in results.
        device: where the model runs.
        revision: branch, tag or commit of the model.
        memory: most memory that rows may take.
        part: k/n writes the k-th of n parts, beside other processes that write the others.
        json: print JSON.
    """
    from inscape.capturing import Stimuli
    from inscape.capturing import capture as run
    from inscape.capturing.run import RESIDUAL
    from inscape.models import load
    from inscape.store.staging import waiting_for

    loaded = load(model, device=device, revision=revision)
    store = run(
        loaded,
        Stimuli(stimuli, column=column),
        sites=sites or RESIDUAL,
        tokens=number_or_word(tokens),
        to=to,
        special=special,
        max_length=max_length,
        truncation_side=truncation_side,
        generate=generate,
        pack=pack,
        dtype=dtype,
        batch_tokens=batch_tokens,
        batch_size=batch_size,
        shard_stimuli=shard_stimuli,
        label=label,
        memory=memory_text(memory) if memory else None,
        part=part,
        progress=False if json else None,
    )
    payload = {"store": to, "system": store.system, "sites": store.sites, "stimuli": store.stimuli.num_rows, "bytes": store.nbytes}
    payload["complete"] = store.complete
    if not store.complete:  # this part is done, and others are not
        payload["missing"] = waiting_for(Path(to), store.manifest)
        say(f"{store.summary()}\nThis part is done; {payload['missing']}", payload, as_json=json)
        return 0
    say(store.summary(), payload, following=command_line("measure", to, "effective_rank", "two_nn", out=f"{to}-profile"), as_json=json)
    return 0
