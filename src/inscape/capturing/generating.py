"""Prompts continued by the model itself, so that the tokens it generates can be read like any others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.batches import Limits, batches
from inscape.capturing.budget import make_room, out_of_memory
from inscape.capturing.feeds import Feed, TextFeed
from inscape.capturing.feeds.text import tokenizer_of
from inscape.capturing.joining import joined, of_prompts
from inscape.capturing.journal import Journal, columns, open_journal, stored
from inscape.capturing.padding import FULL, HALF
from inscape.capturing.probe import move
from inscape.capturing.provenance import environment_facts, model_facts
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import known_limit
from inscape.errors import MemoryBudgetError, StimuliError
from inscape.models import Model

# What the batch, the pads and the shape of the outcome need; the rest is the caller's.
_OURS = (
    "input_ids",
    "inputs",
    "attention_mask",
    "pad_token_id",
    "use_cache",
    "return_dict_in_generate",
    "num_return_sequences",
    "streamer",
    "stopping_criteria",
    "stop_strings",
    "max_length",
)


@dataclass(frozen=True)
class Generation:
    """What `generate=` asks for: at most so many new tokens, chosen greedily unless the options say otherwise."""

    tokens: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None

    @classmethod
    def read(cls, asked: Any) -> Generation:
        """Reads a number of tokens, or a mapping with `max_new_tokens`, options of the module's own `generate`, and a `seed` for sampling.

        Raises:
            StimuliError: there is no number, an option is not the caller's, or sampling has no seed.
        """
        given = dict(asked) if isinstance(asked, Mapping) else {"max_new_tokens": asked}
        count, seed = given.pop("max_new_tokens", None), given.pop("seed", None)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise StimuliError(f"generate={asked!r}: expected how many tokens, 1 or more, or a mapping with 'max_new_tokens'")
        for name, value in given.items():
            if name in _OURS:
                raise StimuliError(f"generate={asked!r}: {name!r} belongs to the capture, which continues each prompt once")
            try:
                json.dumps(value)
            except TypeError as error:
                raise StimuliError(f"generate={asked!r}: {name!r} is {value!r}, which a manifest cannot hold ({error})") from error
        if given.get("do_sample") and not isinstance(seed, int):
            raise StimuliError(f"generate={asked!r} samples, so it needs a 'seed' (a whole number) to be the same when it is run again")
        return cls(count, given, seed)

    def describe(self) -> dict[str, Any]:
        """As the manifest records it."""
        seeded = {} if self.seed is None else {"seed": self.seed}
        return {"max_new_tokens": self.tokens, "do_sample": False, **self.options, **seeded, "read": "recompute"}


def asks_for_answer(stimuli: Stimuli, generation: Generation) -> Stimuli:
    """Chats with the prompt for an answer at their end, unless the caller's template options say otherwise.

    Raises:
        StimuliError: a conversation ends with an answer already.
    """
    if stimuli.kind != "chat" or "add_generation_prompt" in stimuli.template or stimuli.template.get("continue_final_message"):
        return stimuli
    for where, name in enumerate(stimuli.ids):
        if stimuli[where][-1]["role"] == "assistant":
            raise StimuliError(
                f"stimulus {name!r} ends with an answer of the assistant, and generate={generation.tokens} asks for one; leave it out, or "
                "let the model go on with it: Stimuli(..., template={'continue_final_message': True})"
            )
    return stimuli.with_template({**stimuli.template, "add_generation_prompt": True})


def continued(
    model: Model, stimuli: Stimuli, feed: Feed, generation: Generation, *, limits: Limits, to: str | Path | None
) -> tuple[Stimuli, TextFeed]:
    """The stimuli with what the model generated as columns, and a feed that reads prompts and continuations in one pass.

    Batches of prompts are padded on the left and continued under the key-value cache by the module's own `generate`; open edits act. The
    rows are then read by one pass over prompt and continuation, which gives what the passes under the cache gave.

    Args:
        model: the model.
        stimuli: the prompts.
        feed: of the prompts.
        generation: how to go on.
        limits: of a batch.
        to: the folder of the store, where a killed run finds what was generated before.

    Raises:
        StimuliError: the model cannot continue these stimuli, a prompt leaves no room, or an open edit acts otherwise in one pass.
    """
    feed = _check(model, stimuli, feed, generation)
    encoded = feed.encoded
    prompts = hashlib.sha256(encoded.ids.tobytes() + encoded.offsets.tobytes()).hexdigest()
    facts = {"model": model_facts(model, to is not None), "generate": {**generation.describe(), "prompts_sha256": prompts}}
    folder = None if to is None or "://" in str(to) else Path(to)
    ids = None if folder is None else stored(folder, facts)
    if ids is not None:
        ids = [ids[source] for source in stimuli.source] if len(ids) == stimuli.table.num_rows else None
    if ids is None:
        with open_journal(folder, {**facts, "environment": environment_facts(model)}) as journal:
            _run(model, feed, generation, limits, journal)
            ids = [journal.done[where] for where in range(len(stimuli))]
    tokenizer = tokenizer_of(model)
    texts = None if tokenizer is None else [tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in ids]
    told = {**facts["generate"], "generated_tokens": sum(map(len, ids)), "ended": sum(len(row) < generation.tokens for row in ids)}
    longer = joined(encoded, ids, tokenizer, _ends(model, generation), told)
    return stimuli.with_columns(columns(ids, texts)), replace(feed, encoded=longer, rows_of=of_prompts(feed.rows_of, encoded.lengths))


def _check(model: Model, stimuli: Stimuli, feed: Feed, generation: Generation) -> TextFeed:
    """Refuses what cannot be continued, before anything runs."""
    asked = f"generate={generation.tokens}"
    module: Any = model.module
    if isinstance(feed, TextFeed) and feed.given.values:
        raise StimuliError(
            f"{asked}: the stimuli give {', '.join(feed.given.values)} for each token of the prompt, and nobody gives it for the tokens to "
            "come; leave the column out"
        )
    able = hasattr(module, "generate") and (not hasattr(module, "can_generate") or module.can_generate())
    if not isinstance(feed, TextFeed) or getattr(model.config, "is_encoder_decoder", False):
        raise StimuliError(f"{asked} continues texts; {model.name} ({model.family}) does not read prompt and answer in one stack")
    if not able or model.forward is not None:
        lacks = "is called by a forward of your own" if model.forward is not None else "has no head that generates"
        raise StimuliError(f"{asked} continues texts, and {model.name} ({type(module).__name__}) {lacks}; load a causal language model")
    limit = known_limit(tokenizer_of(model), model.config)
    longest = int(feed.encoded.lengths.argmax())
    if limit is not None and generation.tokens >= limit:
        raise StimuliError(f"{asked} leaves no room for a prompt in the {limit} positions of {model.name}; ask for fewer tokens")
    if limit is not None and feed.encoded.lengths[longest] + generation.tokens > limit:
        raise StimuliError(
            f"stimulus {stimuli.ids[longest]!r} has {feed.encoded.lengths[longest]} tokens, so {asked} goes beyond the {limit} positions "
            f"of {model.name}; shorten it with max_length={limit - generation.tokens} (and truncation_side='left' to keep its end)"
        )
    for edited in model.edited:
        for site, change in edited.pairs:
            if change.tokens == "last" or _relative(change.tokens):
                raise StimuliError(
                    f"the open edit {change!r} at {site.name!r} acts on tokens that each pass counts for itself: while generating they are "
                    "others than in the one pass that reads the rows. Give positions from the start, or tokens='all'"
                )
    return feed


def _relative(tokens: Any) -> bool:
    if isinstance(tokens, Tensor):
        return tokens.ndim > 1  # one row per member of a batch that nobody knows
    return isinstance(tokens, tuple) and any(position < 0 for position in tokens)


def _ends(model: Model, generation: Generation) -> list[int]:
    """Ids after which a text is over."""
    module: Any = model.module
    ends = generation.options.get("eos_token_id", getattr(getattr(module, "generation_config", None), "eos_token_id", None))
    return [] if ends is None else [int(end) for end in (ends if isinstance(ends, (list, tuple)) else [ends])]


def _run(model: Model, feed: TextFeed, generation: Generation, limits: Limits, journal: Journal) -> None:
    """Continues every prompt that the journal does not have yet, in batches of similar length."""
    lengths = feed.encoded.lengths
    # Edits at given positions count columns, which are tokens only where nothing is padded on the left.
    placed = any(not isinstance(change.tokens, str) for edited in model.edited for _, change in edited.pairs)
    apart = placed or _counts_what_was_said(model, generation) or not _padding_is_neutral(model, feed)
    groups = lengths if apart else np.zeros_like(lengths)
    while True:
        members = np.zeros(1, np.int64)
        try:
            for members in batches(lengths + generation.tokens, groups, limits):
                if not all(int(m) in journal.done for m in members):
                    journal.add(members, _continue(model, feed, generation, members))
            return
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(members) == 1:
                raise MemoryBudgetError(
                    f"a prompt of {lengths[int(members[0])]} tokens cannot be continued by {generation.tokens}: {error}. Shorten it with "
                    "max_length=..., or use a smaller dtype or another device"
                ) from error
            limits = limits.halved(len(members), int(lengths[members].max()) + generation.tokens)
        make_room(model.device)


def _counts_what_was_said(model: Model, generation: Generation) -> bool:
    """Whether the scores depend on which tokens came before, of which padding would be one."""
    module: Any = model.module
    stated = getattr(module, "generation_config", None)
    known = {name: generation.options.get(name, getattr(stated, name, None)) for name in ("repetition_penalty", "no_repeat_ngram_size")}
    return known["repetition_penalty"] not in (None, 1, 1.0) or bool(known["no_repeat_ngram_size"])


def _padding_is_neutral(model: Model, feed: TextFeed) -> bool:
    """Whether the next token is scored alike with padding before a prompt and without: not so where a state runs over it."""
    pair = replace(feed, left=True).uneven()
    if pair is None:
        return feed.pads
    scores = [model.run(move(batch, model.device, model.dtype)).logits[0, -1].double() for batch in pair]
    alone, padded = scores
    allowed = HALF if torch.finfo(model.dtype).bits < 32 else FULL
    return bool((padded - alone).abs().max() <= allowed * alone.square().mean().sqrt())


def _continue(model: Model, feed: TextFeed, generation: Generation, members: np.ndarray) -> list[np.ndarray]:
    """The new tokens of each prompt of a batch, up to and with the one that ends it."""
    rows = [feed.tokens.ids(int(m)) for m in members]
    width = max(map(len, rows))
    ids = np.full((len(rows), width), feed.pad, np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :], mask[i, width - len(row) :] = row, 1
    module: Any = model.module
    device = model.device
    options = {"do_sample": False, "num_beams": 1, **generation.options, "max_new_tokens": generation.tokens}
    with model.evaluating(), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        if generation.seed is not None:
            torch.manual_seed(generation.seed + int(members[0]))  # a batch draws the same whichever ran before it
        made = module.generate(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            pad_token_id=feed.pad,
            use_cache=True,
            **options,
        )
    new, ends = made[:, width:].cpu().numpy().astype(np.int32), _ends(model, generation)
    found: list[np.ndarray] = []
    for row in new:
        over = np.flatnonzero(np.isin(row, ends))
        found.append(row[: over[0] + 1] if len(over) else row)
    return found
