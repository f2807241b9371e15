"""One short forward before the run: what every site gives, and so what the store will hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inscape.capturing.collect import Output
from inscape.capturing.feeds import ArrayFeed, Batch, Feed, TextFeed, describe_shapes
from inscape.capturing.positions import PositionRule
from inscape.capturing.reducers import Reducer, get
from inscape.errors import SiteNotFoundError, StimuliError
from inscape.models import Model, Site
from inscape.store.manifest import SiteSpec


@dataclass(frozen=True)
class Wanted:
    """A site that was asked for, with the reducer behind its `|`, if any."""

    site: Site
    reducer: Reducer | None

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
            wanted = Wanted(site, reducer)
            found.setdefault(wanted.name, wanted)
    if not found:
        raise SiteNotFoundError("no site was asked for; name at least one, for instance sites='blocks.*.resid_post'")
    return list(found.values())


def move(batch: Batch, device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """The inputs of a batch on the model's device, floats in its dtype."""
    return {
        name: value.to(device, dtype if value.is_floating_point() else None) if isinstance(value, Tensor) else value
        for name, value in batch.inputs.items()
    }


def run_probe(model: Model, feed: Feed, wanted: list[Wanted], *, trunk_only: bool) -> dict[str, Tensor]:
    """What each site gives for two copies of the start of one stimulus.

    Raises:
        SiteNotFoundError: a site does not run, runs more than once, or does not keep stimuli apart.
    """
    batch = feed.probe()
    seen: dict[str, list[Tensor]] = {w.site.name: [] for w in wanted}
    sites = list({w.site.name: w.site for w in wanted}.values())
    with model.hooked(sites, lambda name, x: seen[name].append(x.clone()), stop_after_last=True):
        model.run(move(batch, model.device, model.dtype), trunk_only=trunk_only, stop=True)
    for name, values in seen.items():
        if len(values) != 1:
            times = "does not run" if not values else f"runs {len(values)} times"
            raise SiteNotFoundError(
                f"site {name!r} {times} in a forward over {describe_shapes(batch.inputs)}, so it gives no rows to store"
            )
        x = values[0]
        if x.ndim not in (2, 3) or x.shape[0] != 2:
            raise SiteNotFoundError(
                f"site {name!r} gives shape {list(x.shape)} for a batch of 2 stimuli; expected [2, d] or [2, t, d]. "
                "Its rows cannot be assigned to stimuli: choose a site around it"
            )
    return {name: values[0] for name, values in seen.items()}


def plan_outputs(
    wanted: list[Wanted], probed: dict[str, Tensor], rule: PositionRule, feed: Feed, dtype: torch.dtype | None, length: int
) -> tuple[list[Output], set[str]]:
    """The store's sites with their row sets and dtypes, and the row sets that have class tokens in front.

    `length` is that of the probe: what its stimulus gives at sites of one position per token.
    """
    lengths = list(dict.fromkeys(x.shape[1] for x in probed.values() if x.ndim == 3))
    outputs: list[Output] = []
    flagged: set[str] = set()
    word = rule.tokens if isinstance(rule.tokens, str) and rule.tokens in ("last", "first") else "at"
    for item in wanted:
        x = probed[item.site.name]
        wide = x.dtype if x.dtype == torch.float64 else torch.float32
        if item.reducer is not None:
            if x.ndim != 3:
                raise SiteNotFoundError(
                    f"{item.name!r}: reducer {item.reducer.name!r} takes sequences [t, d]; "
                    f"site {item.site.name!r} gives one vector per stimulus"
                )
            # A reducer's value may be as large as it likes; it costs little, so it is never narrowed.
            outputs.append(Output(item.name, item.site.name, item.reducer, SiteSpec("stimulus", item.reducer.width, wide), wide))
            continue
        if x.ndim == 2 or rule.pooled:
            row_set, kind = "stimulus", "stimulus"
        else:
            row_set, kind = (str(word), "stimulus") if rule.one_row else (feed.row_kind, feed.row_kind)
            if isinstance(feed, TextFeed) and x.shape[1] != length:  # latents: positions, but no tokens
                row_set, kind = f"position-{x.shape[1]}", kind if rule.one_row else "position"
            elif len(lengths) > 1 and not isinstance(feed, TextFeed):  # sites of different length cannot share an index
                row_set = f"{row_set}-{x.shape[1]}"
            if isinstance(feed, ArrayFeed) and feed.prefix and x.shape[1] == feed.prefixed:
                flagged.add(row_set)
        outputs.append(
            Output(item.name, item.site.name, None, SiteSpec(row_set, x.shape[2 if x.ndim == 3 else 1], dtype or x.dtype, kind), x.dtype)
        )
    return outputs, flagged


def find_prefix(model: Model, feed: Feed, probed: dict[str, Tensor], batch: Batch) -> None:
    """Notes how many class and register tokens stand in front of the patches of an image model."""
    patch = getattr(model.config, "patch_size", None)
    pixels = next(iter(batch.inputs.values()))
    if not isinstance(feed, ArrayFeed) or feed.row_kind != "patch" or not isinstance(patch, int) or pixels.ndim != 4:
        return
    patches = (pixels.shape[2] // patch) * (pixels.shape[3] // patch)
    extra = [x.shape[1] - patches for x in probed.values() if x.ndim == 3 and 0 < x.shape[1] - patches <= 16]
    if extra:
        feed.prefix, feed.prefixed = extra[0], extra[0] + patches


def count_rows(feed: Feed, rule: PositionRule, n: int, probed: dict[str, Tensor]) -> float:
    """Rows of the sequence sites over all stimuli: exact for texts, from the probe's length otherwise."""
    if rule.one_row or rule.pooled:
        return n
    if not isinstance(feed, TextFeed):
        return n * max((x.shape[1] for x in probed.values() if x.ndim == 3), default=1)
    if rule.simple:
        return int(feed.encoded.offsets[-1])
    return sum(len(rule.pick(i, int(length), feed.special(i, int(length)), feed.ids(i))) for i, length in enumerate(feed.encoded.lengths))


def digest_of_picks(feed: Feed, rule: PositionRule) -> str | None:
    """A hash of the positions that a function chooses in texts: its code alone does not tell what it closes over."""
    if not isinstance(feed, TextFeed):
        return None
    digest = hashlib.sha256()
    for i, length in enumerate(feed.encoded.lengths):
        digest.update(rule.pick(i, int(length), feed.special(i, int(length)), feed.ids(i)).tobytes())
    return digest.hexdigest()


def check_texts(feed: Feed, rule: PositionRule, need: int = 1, what: str = "") -> None:
    """Finds, before anything runs, the texts that a rule leaves without a row, or with fewer than `what` needs."""
    if not isinstance(feed, TextFeed):
        return
    words = isinstance(rule.tokens, str) and rule.tokens in ("last", "first", "mean", "all")
    if words and rule.special == "keep" and need <= int(feed.encoded.lengths.min()):
        return
    for i, length in enumerate(feed.encoded.lengths):
        picked = rule.pick(i, int(length), feed.special(i, int(length)), feed.ids(i))
        if len(picked) < need:
            raise StimuliError(f"{what} needs {need} tokens; stimulus {rule.name(i)!r} has {len(picked)}. Drop it or choose other sites")
