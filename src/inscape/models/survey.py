"""The dry run of a model: the passes that show all of its parts, and what is wrong where they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.alike import representatives
from inscape.models.calling import READS
from inscape.models.dryrun import Record, block_lists, record
from inscape.models.examples import Pass, form, resized

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NONE = "no example input could be made for it; pass one: model.sites(example=batch)"


def dry_run(root: nn.Module, plans: Iterable[list[Pass]], run: Callable[[Any], Any]) -> tuple[Record | None, str, tuple[Any, ...]]:
    """Runs a model by the first plan of which every pass works, else by the one of which most do.

    Args:
        root: the model.
        plans: each a list of passes, which together run all of the model.
        run: calls the model on a batch.

    Returns:
        What was seen, in one; what is wrong, if anything; the form of the input, where a single one was run.
    """
    best: list[Record] = []
    problem, shown = _NONE, ()
    for passes in plans:
        done, wrong = _passes(root, passes, run)
        if len(done) > len(best) or not best or not wrong:
            problem = wrong
        if len(done) > len(best) or not wrong:
            best, shown = done, form(passes[0][1]) if len(done) == len(passes) == 1 else ()
        if not wrong:
            break
    for other in best[1:]:
        best[0].join(other)
    return best[0] if best else None, problem, shown


def _passes(root: nn.Module, passes: list[Pass], run: Callable[[Any], Any]) -> tuple[list[Record], str]:
    """The passes that work, and what is wrong with the last one that does not."""
    lists = block_lists(root)
    # Of blocks that are built alike, one at least is looked into.
    inner = tuple(f"{path}." for path in lists)
    firsts = tuple(f"{path}.{i}." for path in lists for i in sorted(set(representatives(root, path))))
    done: list[Record] = []
    problem = ""
    for words, batch in passes:
        try:
            log = record(
                root,
                lambda batch=batch: run(batch),
                keep=lambda path: path.startswith(firsts) or not _deep(path, lists),
                jitter=lambda path: path.startswith(inner),
                also=lambda path: path.startswith(inner),
            )
        except Exception as error:  # any model may refuse a made-up input, each in its own way
            shown = f"{type(error).__name__}: {str(error)[:200]}"
            problem = f"the dry run on {words} failed ({shown}); pass an input: model.sites(example=batch)"
            continue
        log.example = words
        read = {READS[key] for key in batch if key in READS} if isinstance(batch, Mapping) else set[str]()
        what = next(iter(read)) if len(read) == 1 else ""
        log.results = {what: log.result}
        log.reads = dict.fromkeys(log.count, what) if len(passes) > 1 else {}
        log.turned = _turned(batch)
        if read != {"text"} and any(isinstance(part, _CONVOLUTIONS) for part in root.modules()):
            _run_resized(root, log, batch, run)
        done.append(log)
    return done, problem


def _turned(batch: Any) -> tuple[int, ...] | None:
    """The sizes of the token ids in a batch, turned around; `None` where there are none, or where both are alike."""
    tensors = list(batch.values()) if isinstance(batch, Mapping) else [batch]
    ids = next((x for x in tensors if isinstance(x, Tensor) and x.ndim == 2 and x.dtype in (torch.int32, torch.int64)), None)
    return None if ids is None or ids.shape[0] == ids.shape[1] else (ids.shape[1], ids.shape[0])


def _run_resized(root: nn.Module, log: Record, batch: Any, run: Callable[[Any], Any]) -> None:
    """Runs once more on another size: the axis that stays as it was holds the channels."""
    try:
        other = record(root, lambda: run(resized(batch)), keep=lambda path: False, jitter=lambda path: False)
    except Exception:  # many models read one size only; then the kinds of the parts decide
        return
    log.resized = {call.path: (call.taken_raw, call.given_raw) for call in reversed(other.calls)}


def _deep(path: str, lists: list[str]) -> bool:
    """Inside a block from which nothing is learned: only shapes are wanted there."""
    return any(path.startswith(f"{blocks}.") and path.count(".") > blocks.count(".") + 1 for blocks in lists)
