"""One capture from the first probe to the last shard, whoever takes the shards."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.capturing.batches import Limits, shard_size, shards
from inscape.capturing.boundaries import settle
from inscape.capturing.budget import Halvings, make_room
from inscape.capturing.collect import Collector, Output
from inscape.capturing.feeds import Feed, TextFeed, feed_for
from inscape.capturing.fidelity import fidelity_note, measure_drift
from inscape.capturing.fitting import fill_shard, fitting_probe, unless_short
from inscape.capturing.generating import Generation, asks_for_answer, continued
from inscape.capturing.guard import PrecisionGuard, Unsound, read_dtype
from inscape.capturing.packing import Pack, PackedFeed, packed_feed
from inscape.capturing.padding import WHY, padding_stays_out
from inscape.capturing.positions import PositionRule
from inscape.capturing.probe import (
    check_texts,
    count_rows,
    digest_of_picks,
    find_prefix,
    move,
    plan_outputs,
    wanted_sites,
)
from inscape.capturing.provenance import environment_facts, model_facts, site_facts, unit_tables
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model, Site
from inscape.models.placement import is_dispatched
from inscape.store.manifest import SiteSpec


@dataclass(frozen=True)
class Settings:
    """What the caller asked for, beside model, stimuli and sites."""

    tokens: Any = None
    special: str = "keep"
    max_length: int | None = None
    dtype: str | torch.dtype | None = None
    batch_tokens: int | None = None
    batch_size: int | None = None
    shard_stimuli: int | None = None
    padding_side: str = "right"
    truncation_side: str | None = None
    generate: Any = None
    pack: Any = None


@dataclass
class ShardRows:
    """The rows of one shard: an index table per row set, the values of every site in the order of the stimuli, and each site's row set."""

    index: int
    rows: dict[str, pa.Table]
    values: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    stimuli: int = 0
    row_sets: dict[str, str] = field(default_factory=dict[str, str])


class Session:
    """Model, stimuli and sites brought together: knows what the rows will be, and makes them shard by shard."""

    def __init__(
        self,
        model: Model,
        stimuli: Stimuli,
        sites: str | Site | Sequence[str | Site],
        settings: Settings,
        to: str | Path | None = None,
    ) -> None:
        self.model, self.settings = model, settings
        self._device, self._dtype = model.device, model.dtype
        self._why_even = ""
        if model.modality != "tensor":
            wanted_sites(model, sites)  # a name that stands for nothing is refused before anything is read or run
        generation = None if settings.generate is None else Generation.read(settings.generate)
        pack = None if settings.pack is None else Pack.read(settings.pack, model, stimuli.kind)
        stimuli = stimuli if generation is None else asks_for_answer(stimuli, generation)
        self.feed: Feed = feed_for(
            model,
            stimuli,
            max_length=settings.max_length if pack is None else pack.max_length(settings.max_length),
            special=settings.special,
            padding_side=settings.padding_side,
            truncation_side=settings.truncation_side,
            whole=pack is not None and pack.across and settings.max_length is None,
        )
        usual = self.feed.limits.on(self._device.type)
        self.limits = Limits(
            usual.tokens if settings.batch_tokens is None else settings.batch_tokens,
            usual.size if settings.batch_size is None else settings.batch_size,
        )
        if generation is not None:
            stimuli, self.feed = continued(model, stimuli, self.feed, generation, limits=self.limits, to=to)
        if pack is not None:
            self.feed = packed_feed(model, self.feed, pack, settings.padding_side)
        self.stimuli = stimuli
        # Of one prompt all tokens are of interest; of many, one row each.
        default = "all" if stimuli.single else self.feed.default_tokens
        tokens = default if settings.tokens is None else settings.tokens
        self.rule = PositionRule(tokens, settings.special, stimuli, self.feed.encoded_text)
        self._whole = PositionRule("all", settings.special, stimuli)
        self._tight: Limits | None = None
        probe = self.feed.probe()
        if model.modality == "tensor":
            model.atlas(move(probe, model.device, model.dtype))  # nothing else says what such a module reads
        wanted = wanted_sites(model, sites)
        self.feed.narrow(item.site for item in wanted)
        probe = self.feed.probe()
        self.trunk_only = model.has_trunk and not any(w.site.needs_logits for w in wanted)
        if isinstance(self.feed, PackedFeed):
            settle(model, self.feed, wanted, self.rule, trunk_only=self.trunk_only)
        streams = list({id(stream): stream for stream in (self.feed.stream(w.site) for w in wanted)}.values())
        check_texts(streams, self.rule)
        reducers = [w.reducer for w in wanted if w.reducer is not None]
        if reducers:
            neediest = max(reducers, key=lambda r: r.minimum)
            check_texts(streams, self._whole, neediest.minimum, neediest.name)
        probed, fits = fitting_probe(model, self.feed, wanted, trunk_only=self.trunk_only)
        if not fits:
            self._tight = Limits(self.limits.tokens, 1)
        find_prefix(model, self.feed, wanted, probed, probe)
        if isinstance(self.feed, TextFeed) and self.feed.pads and self._tight is None:
            read = list({w.site.name: w.site for w in wanted}.values())
            texts = self.feed
            clean = unless_short(model, lambda: padding_stays_out(model, texts, read, trunk_only=self.trunk_only))
            if clean is None:
                self._tight = Limits(self.limits.tokens, 1)
            else:
                texts.pads, self._why_even = clean, "" if clean else WHY
        if settings.special != "keep" and not any(stream.marks_special for stream in streams):
            raise StimuliError(f"special={settings.special!r} has nothing to leave out: {model.name} has no class token")
        self._auto = settings.dtype == "auto"
        self.outputs = plan_outputs(wanted, probed, self.rule, self.feed, None if self._auto else read_dtype(settings.dtype), probe)
        self.collector = Collector(self.outputs, self.rule, self._whole)
        self._sites = list({w.site.name: w.site for w in wanted}.values())
        self._guard, self._unsound = PrecisionGuard(), Unsound()
        self._held: tuple[int, dict[str, Tensor], ShardRows] | None = None
        self.halvings = Halvings()
        # accelerate exchanges the weights in every pass, and those made in inference mode could not be used outside it.
        self._mode = torch.no_grad if is_dispatched(model.module) else torch.inference_mode
        per = [count_rows(output, self.rule, len(stimuli)) for output in self.outputs]
        wide = sum(count * o.spec.d * o.wide.itemsize for count, o in zip(per, self.outputs, strict=True))
        self.bytes = sum(count * o.spec.d * o.spec.torch_dtype.itemsize for count, o in zip(per, self.outputs, strict=True))
        if settings.shard_stimuli is not None and settings.shard_stimuli < 1:
            raise StimuliError(f"shard_stimuli={settings.shard_stimuli} leaves no shard; give 1 or more")
        self.shard_stimuli = settings.shard_stimuli or shard_size(len(stimuli), wide / len(stimuli), self._device.type)
        if self._auto:
            self._decide_dtypes()

    @property
    def units(self) -> dict[str, dict[str, np.ndarray]]:
        """A unit table for every site whose units are made of attention heads."""
        return unit_tables(self.outputs, self._sites)

    @property
    def specs(self) -> dict[str, SiteSpec]:
        """What the store will hold, by site."""
        return {output.name: output.spec for output in self.outputs}

    def plan(self, weights: bool = False) -> dict[str, Any]:
        """Everything that decides the bytes of the store; `weights` hashes the parameters where nothing else tells two models apart."""
        return {
            "model": model_facts(self.model, weights),
            "input": {**self.feed.describe(), "content_sha256": self.stimuli.digest()},
            "rows": {
                **self.rule.describe(),
                **({"picked_sha256": digest_of_picks(self.feed, self.rule)} if callable(self.rule.tokens) else {}),
            },
            "sites_read": {o.name: site_facts(next(s for s in self._sites if s.name == o.site)) for o in self.outputs},
            "batches": {"shard_stimuli": self.shard_stimuli, "batch_tokens": self.limits.tokens, "batch_size": self.limits.size},
            "dtype": "activation" if self.settings.dtype is None else str(self.settings.dtype).removeprefix("torch."),
            "trunk_only": self.trunk_only,
            "environment": environment_facts(self.model),
        }

    def fidelity(self) -> dict[str, Any]:
        """What is known about how faithful the rows are: padding, attention, dtype, batch shape, drift by site."""
        note = fidelity_note(self.model, self.feed, self.settings.padding_side, self.limits, self._why_even)
        stop = min(len(self.stimuli), self.shard_stimuli)
        with self.model.hooked(self._sites, self.collector, stop_after_last=True):
            note["drift"] = measure_drift(self.feed, self.collector, self._forward, stop, len(self.stimuli))
        return note

    @property
    def shard_count(self) -> int:
        """How many shards the stimuli make."""
        return math.ceil(len(self.stimuli) / self.shard_stimuli)

    def resume(self, known: list[dict[str, int]], own: range | None = None) -> list[dict[str, int]]:
        """Takes up the batch halvings that earlier runs of the shards `own` (default: all) noted; returns all that hold now."""
        self.halvings.resume(known, own or range(self.shard_count), self.shard_count, self._tight)
        return self.halvings.records

    def run(
        self, which: range | None = None, on_halving: Callable[[list[dict[str, int]]], None] | None = None
    ) -> Generator[ShardRows, None, None]:
        """Yields the shards `which` (default: all). Close the generator when leaving early: it holds the hooks."""
        asked = range(self.shard_count) if which is None else which
        limits = self.halvings.limits(self._tight or self.limits, asked.start)
        with self.model.hooked(self._sites, self.collector, stop_after_last=True):
            for index, start, stop in shards(len(self.stimuli), self.shard_stimuli):
                if index not in asked:
                    continue
                if self._held is not None and self._held[0] == index:
                    _, wide, shard = self._held
                    self._held = None
                else:
                    limits = self._fill(index, start, stop, limits, on_halving)
                    shard = self._shard(index, start, stop)
                    wide = None
                for output in self.outputs:
                    rows = self.collector.gather(output, start, stop) if wide is None else wide.pop(output.name)
                    if count := self._unsound.look(output.name, rows, shard.rows[output.spec.row_set], self.stimuli):
                        shard.notes.setdefault("nonfinite", {})[output.name] = count
                    shard.values[output.name] = self._narrow(output, rows)
                self.collector.clear()
                yield shard

    def _shard(self, index: int, start: int, stop: int) -> ShardRows:
        kinds = {o.spec.row_set: o.spec.kind for o in self.outputs}
        rows = {row_set: self.collector.index(row_set, start, self.stimuli, kind) for row_set, kind in kinds.items()}
        row_sets = {output.name: output.spec.row_set for output in self.outputs}
        return ShardRows(index, rows, {}, {"stimuli": [start, stop]}, stop - start, row_sets)

    def _narrow(self, output: Output, rows: Tensor) -> Tensor:
        stored = output.spec.torch_dtype
        if stored == rows.dtype:
            return rows
        self._guard.check(output.name, rows, stored)
        return rows.to(stored)

    def _forward(self, members: np.ndarray) -> None:
        batch = self.feed.collate(members)
        self.collector.begin(batch)
        self.model.run(move(batch, self._device, self._dtype), trunk_only=self.trunk_only, stop=True)
        self.collector.end()

    def _fill(self, index: int, start: int, stop: int, limits: Limits, on_halving: Callable[[list[dict[str, int]]], None] | None) -> Limits:
        """Runs all batches of a shard, smaller ones where memory is short."""

        def halved(smaller: Limits) -> None:
            make_room(self._device)
            self.halvings.add(index, smaller)
            if on_halving is not None:
                on_halving(self.halvings.records)

        def name(place: int) -> str:
            return self.stimuli.ids[self.feed.whose(start + place)]

        lengths, groups = self.feed.load(start, stop)
        # Once a shard: entering the mode costs as much as a hook, and no_grad alone leaves autograd's bookkeeping on.
        with self._mode():
            return fill_shard(
                lambda places: self._forward(places + start),
                lengths,
                groups,
                limits,
                begin=self.collector.clear,
                halved=halved,
                name=name,
            )

    def _decide_dtypes(self) -> None:
        """dtype="auto": half precision where the first shard allows it, else the activation's own; the shard is kept for the run."""
        start, stop = 0, min(len(self.stimuli), self.shard_stimuli)
        with self.model.hooked(self._sites, self.collector, stop_after_last=True):
            self._fill(0, start, stop, self._tight or self.limits, None)
        wide = {o.name: self.collector.gather(o, start, stop) for o in self.outputs}
        judge = PrecisionGuard()
        for output in self.outputs:
            if output.reducer is None and output.wide.itemsize > 2 and judge.problem(output.name, wide[output.name], torch.float16) is None:
                output.spec = SiteSpec(output.spec.row_set, output.spec.d, torch.float16, output.spec.kind)
        self._held = (0, wide, self._shard(0, start, stop))
