"""Where attention patterns can be read, from what a dry run saw: by canonical name, or by the path of a module."""

from __future__ import annotations

from collections.abc import Sequence

from inscape.models.attention import Caught, Shape, by_head_shape, only
from inscape.models.dryrun import Call, Record
from inscape.models.sites import Kind, Site
from inscape.models.values import Layout

PATTERN = "attn_pattern"


def pattern_of(log: Record, path: str, time_first: bool) -> tuple[Caught, Shape] | str:
    """What one call of the module at `path` would give, with its shape [b, heads, q, k]; or the reason why it gives nothing."""
    runs = log.count.get(path, 0)
    inside = [caught for caught in log.attention if path in caught.paths]
    if log.unwatched:
        return log.unwatched
    if runs == 0:
        return f"{path!r} does not run"
    if len(inside) % runs:
        return f"{path!r} runs {runs} times and attention inside it {len(inside)} times, so calls cannot be told apart"
    caught = only(inside[: len(inside) // runs], path)
    if isinstance(caught, str):
        return caught
    call = log.first(path)
    given = call.taken_raw if call is not None else None
    batch = given[1 if time_first and len(given) == 3 else 0] if given else None
    shape = by_head_shape(caught.shape, None, batch)
    if shape is None:
        return f"attention in {path!r} has a pattern of shape {list(caught.shape)}, in which heads and stimuli cannot be told apart"
    return caught, shape


def canonical_patterns(
    log: Record, runs: Sequence[Call], *, kind: Kind, layout: Layout, until: int | None = None
) -> tuple[dict[str, Site], dict[str, str]]:
    """`blocks.i.attn_pattern` for every block of a stack, and for those that have none the reason.

    Args:
        log: the dry run.
        runs: what ran as block 0, 1, …: one run of each block, or several runs of a shared one.
        kind: what a row is.
        layout: of the stream.
        until: the moment at which the attention branch of the first block ended, where that is known.
    """
    sites: dict[str, Site] = {}
    missing: dict[str, str] = {}
    inside_first: str | None = None
    for i, run in enumerate(runs):
        name = f"blocks.{i}.{PATTERN}"
        paths = _attentions(log, run, until if i == 0 else None)
        if inside_first is not None and run.path + inside_first in paths:
            paths = [run.path + inside_first]
        found = pattern_of(log, paths[0] if paths else run.path, layout.time_first)
        if isinstance(found, str):
            missing[name] = found
            continue
        caught, shape = found
        if inside_first is None:
            inside_first = paths[0][len(run.path) :]
        taken = run.taken_raw
        expected = None if taken is None or len(taken) != 3 else (taken[1], taken[0]) if layout.time_first else (taken[0], taken[1])
        if expected is not None and (shape[0], shape[2], shape[3]) != (expected[0], expected[1], expected[1]):
            missing[name] = (
                f"attention gives a pattern of shape {list(shape)} where [{expected[0]}, heads, {expected[1]}, {expected[1]}] was expected "
                f"(attention within windows, among latents or by chunks?); {paths[0] + ':pattern'!r} reads it as it is"
            )
            continue
        earlier = sum(call.path == paths[0] and call.began < run.began for call in log.calls)
        nth = earlier if log.count[paths[0]] > 1 else None
        sites[name] = Site(name, paths[0], "pattern", layout=layout, kind=kind, heads=shape[1], call=nth, note=caught.note)
    return sites, missing


def _attentions(log: Record, run: Call, until: int | None) -> list[str]:
    """The innermost modules that run attention in one run of a block, in their order; self-attention only, where there is another."""
    end = run.ended if until is None else until
    inside = [c for c in log.attention if run.began < c.at < end and (c.path == run.path or c.path.startswith(run.path + "."))]
    sure = [c for c in inside if c.sure] or [c for c in inside if len(c.shape) == 4]
    paths = list(dict.fromkeys(c.path for c in sure))
    own = [path for path in paths if not any(word in path.lower().replace("_", "") for word in ("cross", "encdec", "encoderattn"))]
    return own or paths


def attends(log: Record | None, path: str) -> bool:
    """Whether the module at `path` is the innermost one around some attention."""
    return log is not None and any(caught.path == path and caught.sure for caught in log.attention)
