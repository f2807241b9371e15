"""One short forward before the run: what every site gives, and so what the store will hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from inscape.capturing.collect import Output
from inscape.capturing.feeds import Batch, Feed, GridStream, Stream, describe_shapes
from inscape.capturing.patterns import PatternUnits
from inscape.capturing.positions import PositionRule
from inscape.capturing.reducers import Reducer, get, names
from inscape.errors import SiteNotFoundError, StimuliError
from inscape.models import Model, Site
from inscape.store.manifest import SiteSpec


@dataclass(frozen=True)
class Wanted:
    """A site that was asked for, with the reducer behind its `|`, if any."""

    site: Site
    reducer: Reducer | None
    crosses: bool = False  # an attention pattern whose keys are not the positions of its queries

    @property
    def name(self) -> str:
        """What the store calls it."""
        return self.site.name if self.reducer is None else f"{self.site.name}|{self.reducer.name}"


def wanted_sites(model: Model, sites: str | Site | Sequence[str | Site]) -> list[Wanted]:
    """The sites that patterns stand for; a pattern may end in `|reducer`.

    Raises:
        SiteNotFoundError: a pattern or a reducer is unknown, or nothing was asked for.
    """
    patterns = [sites] if isinstance(sites, (str, Site)) else list(sites)
    found: dict[str, Wanted] = {}
    for pattern in patterns:
        base, _, suffix = pattern.partition("|") if isinstance(pattern, str) else (pattern, "", "")
        reducer = get(suffix) if suffix else None
        for site in model.resolve(base):
            shape = model.atlas().rows(site) if site.port == "pattern" else None
            wanted = Wanted(site, reducer, crosses=shape is not None and shape[2] != shape[3])
            if reducer is not None and reducer.attention != (site.port == "pattern"):
                reads, holds = ("attention patterns", "activations") if reducer.attention else ("activations", "an attention pattern")
                others = ", ".join(map(repr, names(attention=not reducer.attention)))
                raise SiteNotFoundError(
                    f"{wanted.name!r}: reducer {reducer.name!r} reads {reads}, and site {site.name!r} holds {holds}; "
                    f"reducers of that are {others}"
                )
            if reducer is not None and reducer.square and wanted.crosses and shape is not None:
                raise SiteNotFoundError(
                    f"{wanted.name!r}: reducer {reducer.name!r} compares places of queries and keys, but {site.name!r} is cross-attention "
                    f"({shape[2]} queries and {shape[3]} keys in the dry run): its keys are other tokens; ask for 'entropy' or 'sink_share'"
                )
            found.setdefault(wanted.name, wanted)
    if not found:
        raise SiteNotFoundError("no site was asked for; name at least one, for instance sites='blocks.*.resid_post'")
    return list(found.values())


def move(batch: Batch, device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """The inputs of a batch on the model's device, floats in its dtype."""
    moved: dict[str, object] = {}
    for name, value in batch.inputs.items():
        if isinstance(value, PackedSequence):
            moved[name] = value.to(device)  # pyright: ignore[reportArgumentType]  (it hands its arguments to Tensor.to)
        else:
            moved[name] = value.to(device, dtype if value.is_floating_point() else None) if isinstance(value, Tensor) else value
    return moved


def _seen(model: Model, sites: list[Site], inputs: dict[str, object], trunk_only: bool) -> dict[str, list[Tensor]]:
    seen: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    with model.hooked(sites, lambda name, x: seen[name].append(x.clone()), stop_after_last=True):
        model.run(inputs, trunk_only=trunk_only, stop=True)
    return seen


def _one_by_one(model: Model, sites: list[Site], inputs: dict[str, object], trunk_only: bool) -> dict[str, list[Tensor]]:
    """The same for two stimuli that do not fit into memory together."""
    rows: list[dict[str, list[Tensor]]] = []
    for i in range(2):
        alone = {
            name: value.narrow(0 if value.shape[0] == 2 else 1, i, 1) if isinstance(value, Tensor) and 2 in value.shape[:2] else value
            for name, value in inputs.items()
        }
        rows.append(_seen(model, sites, alone, trunk_only))
    return {name: [torch.cat(both) for both in zip(rows[0][name], rows[1][name], strict=True)] for name in rows[0]}


def run_probe(model: Model, feed: Feed, wanted: list[Wanted], *, trunk_only: bool, together: bool = True) -> dict[str, Tensor]:
    """What each site gives for two copies of the start of one stimulus, run together or one by one.

    Raises:
        SiteNotFoundError: a site does not run, runs more than once, or does not keep stimuli apart.
    """
    batch = feed.probe()
    sites = list({w.site.name: w.site for w in wanted}.values())
    inputs = move(batch, model.device, model.dtype)
    seen = _seen(model, sites, inputs, trunk_only) if together else _one_by_one(model, sites, inputs, trunk_only)
    for name, values in seen.items():
        if len(values) != 1:
            times = "does not run" if not values else f"runs {len(values)} times"
            raise SiteNotFoundError(
                f"site {name!r} {times} in a forward over {describe_shapes(batch.inputs)}, so it gives no rows to store"
            )
        x = values[0]
        if x.ndim == 4 and x.shape[0] == 2 and not _alike(x):
            raise SiteNotFoundError(
                f"site {name!r} gives two different attention patterns (shape {list(x.shape)}) for two copies of one stimulus, so heads "
                "and stimuli lie in an order that cannot be told; choose the module that mixes the values itself"
            )
        if x.ndim not in (2, 3, 4) or x.shape[0] != 2:
            raise SiteNotFoundError(
                f"site {name!r} gives shape {list(x.shape)} for a batch of 2 stimuli; expected [2, d] or [2, t, d]. "
                "Its rows cannot be assigned to stimuli: choose a site around it"
            )
    return {name: values[0] for name, values in seen.items()}


def plan_outputs(
    wanted: list[Wanted], probed: dict[str, Tensor], rule: PositionRule, feed: Feed, dtype: torch.dtype | None, batch: Batch
) -> list[Output]:
    """The store's sites with their row sets and dtypes; `batch` is what the probe read."""
    lengths: dict[str, set[int]] = {}
    for item in wanted:
        t = _positions(probed[item.site.name])
        if t:
            lengths.setdefault(feed.stream(item.site).tower, set()).add(t)
    outputs: list[Output] = []
    word = rule.tokens if isinstance(rule.tokens, str) and rule.tokens in ("last", "first") else "at"
    for item in wanted:
        x = probed[item.site.name]
        stream = feed.stream(item.site)
        t = _positions(x)
        units = _units_of_pattern(x, item, feed, batch) if item.site.port == "pattern" else None
        wide = x.dtype if x.dtype == torch.float64 else torch.float32
        if item.reducer is not None:
            if not t:
                raise SiteNotFoundError(
                    f"{item.name!r}: reducer {item.reducer.name!r} takes sequences [t, d]; "
                    f"site {item.site.name!r} gives one vector per stimulus"
                )
            # A reducer's value may be as large as it likes; it costs little, so it is never narrowed.
            spec = SiteSpec("stimulus", item.reducer.width if units is None else units.heads, wide)
            outputs.append(Output(item.name, item.site.name, item.reducer, spec, wide, stream, t, units))
            continue
        if not t or rule.pooled:
            row_set, kind = "stimulus", "stimulus"
        else:
            base, kind = (str(word), "stimulus") if rule.one_row else (stream.kind, stream.kind)
            if not stream.fits(t, batch.places[stream.tower].length):  # latents: positions, but no tokens
                stream = Stream("position", stream.tower)
                base, kind = f"position-{t}", kind if rule.one_row else "position"
            elif len(lengths[stream.tower]) > 1 and stream.lengths is None:  # sites of different length cannot share an index
                base = f"{base}-{t}"
            row_set = stream.prefix + base
        spec = SiteSpec(row_set, x.shape[-1] if units is None else units.heads * units.keys, dtype or x.dtype, kind)
        outputs.append(Output(item.name, item.site.name, None, spec, x.dtype, stream, t, units))
    return outputs


def _positions(x: Tensor) -> int:
    """Positions of an output (queries of an attention pattern); 0 for one vector per stimulus."""
    return x.shape[1] if x.ndim == 3 else x.shape[2] if x.ndim == 4 else 0


def _alike(pattern: Tensor) -> bool:
    return bool(torch.allclose(pattern[0], pattern[1], rtol=1e-2, atol=1e-2, equal_nan=True))


def _units_of_pattern(x: Tensor, item: Wanted, feed: Feed, batch: Batch) -> PatternUnits:
    """Heads and keys of a pattern [b, heads, q, k] that the probe saw."""
    own, k = feed.stream(item.site), x.shape[3]
    if not item.crosses and x.shape[2] == k:
        keyed: Stream | None = own
    else:  # the keys are the positions of another stack, or of something else, all of them real
        keyed = next((stream for stream in feed.streams.values() if stream is not own and batch.places[stream.tower].length == k), None)
    if keyed is None:
        return PatternUnits(x.shape[1], k, None)
    # Text is probed by the start of a stimulus, and anything else by a whole one.
    known = keyed.lengths if batch.places[keyed.tower].length == k else None
    return PatternUnits(x.shape[1], k if known is None else int(known.max()), keyed.tower)


def find_prefix(model: Model, feed: Feed, wanted: list[Wanted], probed: dict[str, Tensor], batch: Batch) -> None:
    """Notes how many class and register tokens stand in front of the patches of an image model."""
    patch = getattr(getattr(model.config, "vision_config", None) or model.config, "patch_size", None)
    pixels = next((x for x in batch.inputs.values() if isinstance(x, Tensor) and x.ndim == 4), None)
    if not isinstance(patch, int) or pixels is None:
        return
    patches = (pixels.shape[2] // patch) * (pixels.shape[3] // patch)
    for stream in feed.streams.values():
        if isinstance(stream, GridStream) and stream.kind == "patch":
            stream.find(patches, [t for w in wanted if (t := _positions(probed[w.site.name])) and feed.stream(w.site) is stream])


def count_rows(output: Output, rule: PositionRule, n: int) -> float:
    """Rows of a site over all stimuli: exact for texts, from the probe's length otherwise."""
    if output.spec.kind == "stimulus":
        return n
    lengths = output.stream.lengths
    if lengths is None:
        return n * max(1, output.t)
    if rule.simple:
        return int(lengths.sum())
    return sum(len(row) for row in _picks(output.stream, rule))


def digest_of_picks(feed: Feed, rule: PositionRule) -> str | None:
    """A hash of the positions that a function chooses in texts: its code alone does not tell what it closes over."""
    digest, known = hashlib.sha256(), False
    for stream in feed.streams.values():
        for row in _picks(stream, rule):
            digest.update(row.tobytes())
            known = True
    return digest.hexdigest() if known else None


def check_texts(streams: Iterable[Stream], rule: PositionRule, need: int = 1, what: str = "") -> None:
    """Finds, before anything runs, the texts that a rule leaves without a row, or with fewer than `what` needs."""
    words = isinstance(rule.tokens, str) and rule.tokens in ("last", "first", "mean", "all")
    for stream in streams:
        if stream.lengths is None or (words and rule.special == "keep" and need <= int(stream.lengths.min())):
            continue
        for i, picked in enumerate(_picks(stream, rule)):
            if len(picked) < need:
                raise StimuliError(
                    f"{what} needs {need} tokens; stimulus {rule.name(i)!r} has {len(picked)}. Drop it or choose other sites"
                )


def _picks(stream: Stream, rule: PositionRule) -> Iterator[np.ndarray]:
    """The positions that a rule chooses in each stimulus, where the lengths are known before the run."""
    for i, length in enumerate(() if stream.lengths is None else stream.lengths):
        yield rule.pick(i, int(length), stream.special(i, int(length)), stream.ids(i))
