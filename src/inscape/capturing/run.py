"""`capture` writes what a model does with stimuli into a store; `stream` hands it on instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inscape.capturing.budget import check_room
from inscape.capturing.endless import capture_stream, read_stream
from inscape.capturing.handover import Handover
from inscape.capturing.progress import progress_bar
from inscape.capturing.session import Session, Settings, ShardRows
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.streams import StimulusStream
from inscape.capturing.untouched import untouched
from inscape.errors import StimuliError
from inscape.models import Model, Site, load
from inscape.store.staging import read_part, shards_of
from inscape.store.store import Store
from inscape.store.writer import StoreWriter

RESIDUAL = "blocks.*.resid_post"


def capture(
    model: str | Path | nn.Module | Model,
    stimuli: Any,
    sites: str | Site | Sequence[str | Site] = RESIDUAL,
    tokens: Any = None,
    to: str | Path | None = None,
    *,
    special: str = "keep",
    max_length: int | None = None,
    dtype: str | torch.dtype | None = None,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    shard_stimuli: int | None = None,
    padding_side: str = "right",
    truncation_side: str | None = None,
    generate: int | Mapping[str, Any] | None = None,
    pack: int | Mapping[str, Any] | None = None,
    limit: int | None = None,
    label: str | None = None,
    memory: str | int | None = None,
    part: str | None = None,
    progress: bool | None = None,
) -> Store:
    """Runs a model over stimuli and keeps the activations of some sites: in memory, or in a folder that resumes when killed.

    Args:
        model: a Hugging Face id or path, a module, or a loaded `Model`.
        stimuli: texts, chat messages, token ids, images, sounds, arrays or a table of them (see `Stimuli`). An `IterableDataset`, a
            `DataLoader`, a generator or a function that returns one is read, run and written piece by piece, a shard each (see
            `Stimuli.stream`); a killed run skips what is done.
        sites: names or globs; a name may end in a reducer, as in `blocks.*.resid_post|token_cosine`.
        tokens: which positions become rows: "last", "first", "mean", "all", a position, a list, a slice, a role of chat messages
            ("assistant", "user", …), "generated", a column (positions, a mask, or pieces of the text), a mapping that names pieces of text,
            or a function of the token ids. Default: "last" for texts and sequences, "mean" for images and sounds, which have patches and
            frames in place of tokens, and "all" for one prompt that is no list.
        to: the folder of the store, or an address that fsspec knows (`s3://bucket/run`); without it the rows stay in memory.
        special: "keep", "drop" or "bos_only": whether rows of special tokens are kept; the model reads them in any case.
        max_length: the most tokens of a text; default: what tokenizer and model state. Texts beyond it are cut, counted and warned about.
        dtype: of the stored rows; default the activations' own; "auto" takes float16 wherever it loses nothing.
        batch_tokens: the most tokens (samples, for sounds) in a batch after padding.
        batch_size: the most stimuli in a batch.
        shard_stimuli: stimuli per shard; default: as many as give about 128 MB.
        padding_side: "right" or "left"; position ids are corrected for the latter.
        truncation_side: "right" or "left": where texts are cut; default: the tokenizer's own side.
        generate: how many tokens the model first adds to each prompt, greedily, or a mapping with "max_new_tokens" and options of the
            module's own `generate` ("do_sample" needs a "seed"). Rows are read by one pass over prompt and continuation; open edits act
            on both. The table of stimuli gets `generated_text` and `generated_ids`, the rows `generated`.
        pack: the length of contexts that hold several documents, kept apart; or {"length": …, "across": True, "separator": "eos"} for
            documents that are read on as one text. Rows keep their document and their place in it.
        limit: how many stimuli at most, of a stream above all.
        label: the system's name in results; default: the model's.
        memory: the most that rows may take in memory, as "4GB"; default: what is free.
        part: "k/n" writes the k-th of n parts of the store, beside other processes that write the others; whichever ends last
            completes it, with the bytes that a single process would have written.
        progress: a bar with rate and time left; default: on a terminal.

    Returns:
        The finished store. The same call on a finished folder returns it at once; on an unfinished one it goes on at the
        first missing shard. A part that ends before another one returns the store as it is then: incomplete, and readable when it is whole.

    Raises:
        SiteNotFoundError: a site or reducer is unknown.
        StimuliError: the stimuli do not suit the model, or a rule leaves one of them without a row.
        StoreMismatchError: `to` holds a store of another plan.
        MemoryBudgetError: rows that do not fit into memory or onto the disk.
        DegenerateInputError: half precision would lose a unit's variation; the message names site and unit.

    Example:
        >>> store = ix.capture(torch.nn.Sequential(torch.nn.Linear(4, 3)), torch.randn(10, 4), sites="0")
        >>> store["0"].shape
        (10, 3)
    """
    chosen = None if part is None else read_part(part)
    if chosen is not None and to is None:
        raise StimuliError(f"part={part!r} is written into a folder that the parts share; give to='a/folder'")
    settings = Settings(
        tokens, special, max_length, dtype, batch_tokens, batch_size, shard_stimuli, padding_side, truncation_side, generate, pack
    )
    source = StimulusStream.of(stimuli)
    if source is not None and part is not None:
        raise StimuliError(f"part={part!r} cuts stimuli that are known; a stream is read by one process, from its first item on")
    if source is not None:
        loaded = load(model)
        with untouched(loaded.module):
            return capture_stream(loaded, source, sites, settings, to, limit=limit, label=label, memory=memory, progress=progress)
    given = _limited(Stimuli.of(stimuli), limit)
    loaded = load(model)
    with untouched(loaded.module):
        session = Session(loaded, given, sites, settings, to)
        own = range(session.shard_count) if chosen is None else shards_of(chosen, session.shard_count)
        plan = session.plan(weights=to is not None)
        if to is None:
            check_room(session.bytes, None, memory)
        with StoreWriter.create_or_resume(
            to, plan, session.stimuli.table, session.specs, units=session.units, system=label, part=chosen, shards=session.shard_count
        ) as writer:
            return writer.finish() if writer.complete else _fill(writer, session, own, to, progress)


def _limited(stimuli: Stimuli, limit: int | None) -> Stimuli:
    return stimuli if limit is None else stimuli.first(limit)


def _fill(writer: StoreWriter, session: Session, own: range, to: str | Path | None, progress: bool | None) -> Store:
    """Writes the shards of `own` that are missing."""
    left = range(own.start + len(writer.done_shards), own.stop)
    if to is not None:
        check_room(session.bytes * len(left) / session.shard_count, to, None)
    if own.start == 0 and "fidelity" not in writer.notes:
        writer.record(fidelity=session.fidelity())
    if halvings := session.resume(writer.notes.get("halvings", []), own):
        writer.record(halvings=halvings)
    first, end = (min(len(session.stimuli), shard * session.shard_stimuli) for shard in (own.start, own.stop))
    with Handover(writer.write_shard) as handover:

        def note(halvings: list[dict[str, int]]) -> None:
            handover.settle()  # the manifest is one writer's at a time
            writer.record(halvings=halvings)

        shards = session.run(left, note)
        begun = min(end, left.start * session.shard_stimuli) - first
        with closing(shards), progress_bar(end - first, begun, progress) as advance:
            for shard in shards:
                handover.give(shard.index, shard.rows, shard.values, shard.notes)
                advance(shard.stimuli)
    return writer.finish()


def stream(
    model: str | Path | nn.Module | Model,
    stimuli: Any,
    sites: str | Site | Sequence[str | Site],
    tokens: Any,
    consumer: Callable[[ShardRows], None],
    *,
    special: str = "keep",
    max_length: int | None = None,
    dtype: str | torch.dtype | None = None,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    shard_stimuli: int | None = None,
    padding_side: str = "right",
    truncation_side: str | None = None,
    generate: int | Mapping[str, Any] | None = None,
    pack: int | Mapping[str, Any] | None = None,
    limit: int | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Runs a model over stimuli and gives each shard's rows to `consumer`; nothing is kept, so any number of stimuli fits.

    `consumer` gets a `ShardRows`: `values` maps sites to tensors [rows, d], `rows` maps row sets to their index tables. The other
    arguments are those of `capture`.

    Returns:
        The plan that was followed, with the site specs under "sites" and the fidelity note under "fidelity".

    Raises:
        SiteNotFoundError: a site or reducer is unknown.
        StimuliError: the stimuli do not suit the model.

    Example:
        >>> moments = {}
        >>> stream("gpt2", texts, "blocks.*.resid_post", "all", lambda shard: update(moments, shard.values))
    """
    settings = Settings(
        tokens, special, max_length, dtype, batch_tokens, batch_size, shard_stimuli, padding_side, truncation_side, generate, pack
    )
    source = StimulusStream.of(stimuli)
    if source is not None:
        loaded = load(model)
        with untouched(loaded.module):
            return read_stream(loaded, source, sites, settings, consumer=consumer, limit=limit, progress=progress)
    given = _limited(Stimuli.of(stimuli), limit)
    loaded = load(model)
    with untouched(loaded.module):
        session = Session(loaded, given, sites, settings)
        fidelity = session.fidelity()
        session.resume([])
        shards = session.run()
        with closing(shards), progress_bar(len(given), 0, progress) as advance:
            for shard in shards:
                consumer(shard)
                advance(shard.stimuli)
        return {**session.plan(), "sites": session.specs, "fidelity": fidelity, "halvings": session.halvings.records}
