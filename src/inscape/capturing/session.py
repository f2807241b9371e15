"""One capture from the first probe to the last shard, whoever takes the shards."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.capturing.batches import Limits, batches, shard_size, shards
from inscape.capturing.collect import Collector, Output
from inscape.capturing.feeds import Feed, feed_for
from inscape.capturing.fidelity import measure_drift
from inscape.capturing.guard import PrecisionGuard
from inscape.capturing.positions import PositionRule
from inscape.capturing.probe import check_texts, count_rows, digest_of_picks, find_prefix, move, plan_outputs, run_probe, wanted_sites
from inscape.capturing.provenance import environment_facts, model_facts, site_facts, unit_tables
from inscape.capturing.stimuli import Stimuli
from inscape.errors import MemoryBudgetError, StimuliError, nearest
from inscape.models import Model, Site
from inscape.store.manifest import SiteSpec

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


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

    def __init__(self, model: Model, stimuli: Stimuli, sites: str | Site | Sequence[str | Site], settings: Settings) -> None:
        self.model, self.stimuli, self.settings = model, stimuli, settings
        self._device, self._dtype = model.device, model.dtype
        self.feed: Feed = feed_for(
            model, stimuli, max_length=settings.max_length, special=settings.special, padding_side=settings.padding_side
        )
        tokens = self.feed.default_tokens if settings.tokens is None else settings.tokens
        self.rule = PositionRule(tokens, settings.special, stimuli)
        self._whole = PositionRule("all", settings.special, stimuli)
        self.limits = Limits(
            self.feed.limits.tokens if settings.batch_tokens is None else settings.batch_tokens,
            self.feed.limits.size if settings.batch_size is None else settings.batch_size,
        )
        probe = self.feed.probe()
        if model.modality == "tensor" and model.config is None:
            model.atlas(move(probe, model.device, model.dtype))  # nothing else says what such a module reads
        wanted = wanted_sites(model, sites)
        self.trunk_only = model.has_trunk and not any(w.site.needs_logits for w in wanted)
        streams = list({id(stream): stream for stream in (self.feed.stream(w.site) for w in wanted)}.values())
        check_texts(streams, self.rule)
        reducers = [w.reducer for w in wanted if w.reducer is not None]
        if reducers:
            neediest = max(reducers, key=lambda r: r.minimum)
            check_texts(streams, self._whole, neediest.minimum, neediest.name)
        probed = run_probe(model, self.feed, wanted, trunk_only=self.trunk_only)
        find_prefix(model, self.feed, wanted, probed, probe)
        if settings.special != "keep" and not any(stream.marks_special for stream in streams):
            raise StimuliError(f"special={settings.special!r} has nothing to leave out: {model.name} has no class token")
        self._auto = settings.dtype == "auto"
        self.outputs = plan_outputs(wanted, probed, self.rule, self.feed, None if self._auto else _dtype(settings.dtype), probe)
        self.collector = Collector(self.outputs, self.rule, self._whole)
        self._sites = list({w.site.name: w.site for w in wanted}.values())
        self._guard = PrecisionGuard()
        self._held: tuple[int, dict[str, Tensor], ShardRows] | None = None
        self.halvings: list[dict[str, int]] = []
        per = [count_rows(output, self.rule, len(stimuli)) for output in self.outputs]
        wide = sum(count * o.spec.d * o.wide.itemsize for count, o in zip(per, self.outputs, strict=True))
        self.bytes = sum(count * o.spec.d * o.spec.torch_dtype.itemsize for count, o in zip(per, self.outputs, strict=True))
        if settings.shard_stimuli is not None and settings.shard_stimuli < 1:
            raise StimuliError(f"shard_stimuli={settings.shard_stimuli} leaves no shard; give 1 or more")
        self.shard_stimuli = settings.shard_stimuli or shard_size(len(stimuli), wide / len(stimuli))
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
        side = self.settings.padding_side if self.feed.pads else "none: only equal lengths share a batch"
        attention = getattr(self.model.config, "_attn_implementation", None)
        note: dict[str, Any] = {"padding": side, "attention": attention, "model_dtype": str(self.model.dtype).removeprefix("torch.")}
        reason = self.feed.describe().get("feat_extract_norm")
        if reason == "group":
            note["why"] = "the group norm of the feature extractor runs over time and would see the padding"
        note["batch"] = {"tokens": self.limits.tokens, "stimuli": self.limits.size}
        stop = min(len(self.stimuli), self.shard_stimuli)
        with self.model.hooked(self._sites, self.collector, stop_after_last=True):
            note["drift"] = measure_drift(self.feed, self.collector, self._forward, stop, len(self.stimuli))
        return note

    def run(self, start_at: int = 0, on_halving: Callable[[list[dict[str, int]]], None] | None = None) -> Generator[ShardRows, None, None]:
        """Yields the shards from `start_at` on. Close the generator when leaving early: it holds the hooks."""
        limits = self.limits
        for halving in self.halvings:
            if halving["shard"] <= start_at:
                limits = Limits(halving["batch_tokens"], halving["batch_size"])
        with self.model.hooked(self._sites, self.collector, stop_after_last=True):
            for index, start, stop in shards(len(self.stimuli), self.shard_stimuli):
                if index < start_at:
                    continue
                if self._held is not None and self._held[0] == index:
                    _, wide, shard = self._held
                    self._held = None
                    shard.values = {o.name: self._narrow(o, wide.pop(o.name)) for o in self.outputs}
                else:
                    limits = self._fill(index, start, stop, limits, on_halving)
                    shard = self._shard(index, start, stop)
                    shard.values = {o.name: self._narrow(o, self.collector.gather(o, start, stop)) for o in self.outputs}
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
        """Runs all batches of a shard; too little memory starts the shard again with halved batches."""
        lengths, groups = self.feed.load(start, stop)
        while True:
            self.collector.clear()
            members = np.zeros(1, np.int64)
            try:
                # Once a shard: entering the mode costs as much as a hook, and no_grad alone leaves autograd's bookkeeping on.
                with torch.inference_mode():
                    for members in batches(lengths, groups, limits):
                        self._forward(members + start)
                return limits
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                count, longest = len(members), int(lengths[members].max())
                if count == 1:
                    raise MemoryBudgetError(
                        f"stimulus {self.stimuli.ids[start + int(members[0])]!r} alone (length {longest}) does not fit into memory: "
                        f"{error}. Shorten it with max_length=..., or use a smaller dtype or another device"
                    ) from error
                limits = limits.halved(count, longest)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            self.halvings.append({"shard": index, "batch_tokens": limits.tokens, "batch_size": limits.size})
            if on_halving is not None:
                on_halving(self.halvings)

    def _decide_dtypes(self) -> None:
        """dtype="auto": half precision where the first shard allows it, else the activation's own; the shard is kept for the run."""
        start, stop = 0, min(len(self.stimuli), self.shard_stimuli)
        with self.model.hooked(self._sites, self.collector, stop_after_last=True):
            self._fill(0, start, stop, self.limits, None)
        wide = {o.name: self.collector.gather(o, start, stop) for o in self.outputs}
        judge = PrecisionGuard()
        for output in self.outputs:
            if output.reducer is None and output.wide.itemsize > 2 and judge.problem(output.name, wide[output.name], torch.float16) is None:
                output.spec = SiteSpec(output.spec.row_set, output.spec.d, torch.float16, output.spec.kind)
        self._held = (0, wide, self._shard(0, start, stop))


def _dtype(asked: str | torch.dtype | None) -> torch.dtype | None:
    if asked is None or isinstance(asked, torch.dtype):
        if asked is not None and asked not in DTYPES.values():
            raise StimuliError(f"dtype={asked} cannot be stored; expected one of {', '.join(DTYPES)} or 'auto'")
        return asked
    if asked not in DTYPES:
        raise StimuliError(f"dtype={asked!r} is unknown; nearest: {nearest(asked, [*DTYPES, 'auto'])}")
    return DTYPES[asked]


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryBudgetError):
        return False
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "out of memory" in text or "can't allocate memory" in text
