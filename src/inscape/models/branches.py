"""What a block adds to its residual stream, and in which order: read off the tensors of one dry run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from inscape.models.dryrun import Call, Record, linear_like
from inscape.models.values import same

Role = Literal["attention", "mixer", "mlp", "several"]

# Branches of one block that a search looks for: attention, attention to an encoder, and an MLP.
_LONGEST = 3


@dataclass(frozen=True)
class Part:
    """One run of a module inside a block, its tensors with stimuli and positions on axes of their own.

    Attributes:
        call: the run as it was recorded.
        taken: its input as `[b, t, d]` where that is possible.
        given: its output, likewise.
        flat_taken: the input itself has stimuli and positions on one axis.
        flat_given: likewise the output.
    """

    call: Call
    taken: Tensor | None
    given: Tensor | None
    flat_taken: bool = False
    flat_given: bool = False

    @property
    def path(self) -> str:
        """Dotted path of the module."""
        return self.call.path

    @property
    def began(self) -> int:
        """When it began, on the clock of the dry run."""
        return self.call.began

    @property
    def ended(self) -> int:
        """When it ended."""
        return self.call.ended


def part_of(call: Call, stream: Tensor) -> Part:
    """A call whose flattened tensors are unfolded as the stream is."""
    taken, flat_taken = _unfold(call.taken, stream)
    given, flat_given = _unfold(call.given, stream)
    return Part(call, taken, given, flat_taken, flat_given)


def _unfold(value: Tensor | None, stream: Tensor) -> tuple[Tensor | None, bool]:
    if value is None or value.ndim != 2 or value.shape[0] != stream.shape[0] * stream.shape[1]:
        return value, False
    return value.unflatten(0, (stream.shape[0], stream.shape[1])), True


@dataclass(frozen=True)
class Branch:
    """One thing that is added to the stream.

    Attributes:
        part: the outermost module whose output is what is added (up to a fixed factor, when `scaled`).
        after: moment at which the branch starts.
        scaled: the block multiplies that output by a constant, or each unit by one of its own, before adding it.
    """

    part: Part
    after: int
    scaled: bool = False


@dataclass(frozen=True)
class Between:
    """The stream between two branches: what a module reads (`port` "in"), or what the norm behind the sum returns ("out")."""

    part: Part
    port: Literal["in", "out"]


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes: by its class name, as every implementation calls it so."""
    return "norm" in type(module).__name__.lower()


class Block:
    """One run of one block of a dry run.

    Args:
        root: the model.
        log: the dry run.
        call: the run of the block.
    """

    def __init__(self, root: nn.Module, log: Record, call: Call) -> None:
        assert call.taken is not None
        assert call.given is not None
        self.root, self.log, self.call = root, log, call
        self.x, self.y = call.taken, call.given
        inside = [c for c in log.calls if c.path.startswith(call.path + ".") and call.began < c.began < call.ended]
        self.parts = [part_of(c, self.x) for c in inside]

    def module(self, part: Part) -> nn.Module:
        """The module of a part."""
        return self.root.get_submodule(part.path)

    def sequential(self) -> tuple[list[Branch], list[Between]] | None:
        """Branches that follow each other, each reading the sum so far: before or after norms, or with norms on both sides."""
        for depth in range(1, _LONGEST + 1):
            for found in self._chain(self.x, self.call.began, depth):
                return found
        return None

    def _chain(self, stream: Tensor, after: int, left: int) -> Iterator[tuple[list[Branch], list[Between]]]:
        if left == 1:
            last = self._last(stream, after)
            if last is not None:
                yield [last], []
            return
        for reader in self.parts:
            m = reader.taken
            if m is None or reader.began < after or m.shape != stream.shape or _equal(m, stream):
                continue
            branch = self._added(stream, m, after, reader.began)
            if branch is None:
                continue
            for branches, between in self._chain(m, reader.began, left - 1):
                yield [branch, *branches], [Between(reader, "in"), *between]
            n = reader.given
            if n is not None and n.shape == m.shape and is_norm(self.module(reader)):
                for branches, between in self._chain(n, reader.ended, left - 1):
                    yield [branch, *branches], [Between(reader, "out"), *between]

    def _last(self, stream: Tensor, after: int) -> Branch | None:
        """The branch that ends the block, perhaps before a last norm."""
        found = self._added(stream, self.y, after, self.call.ended)
        if found is not None:
            return found
        for last in self.parts:
            if last.given is not None and last.taken is not None and last.began >= after and same(last.given, self.y):
                found = self._added(stream, last.taken, after, last.began) if last.taken.shape == stream.shape else None
                if found is not None and is_norm(self.module(last)):
                    return found
        return None

    def _added(self, base: Tensor, target: Tensor, after: int, before: int) -> Branch | None:
        """The module whose output, added to `base`, gives `target`."""
        outs = [p for p in self.parts if p.given is not None and after <= p.began and p.ended < before and p.given.shape == base.shape]
        exact = [p for p in outs if p.given is not None and _equal(base + p.given, target)]
        near = exact or [p for p in outs if p.given is not None and _adds_up(target, base, p.given)]
        if near:
            return Branch(self._outermost(near), after)
        difference = target - base
        if not bool(difference.abs().max() > 0):
            return None
        scaled = [p for p in outs if p.given is not None and _scaled(p.given, difference)]
        return Branch(self._outermost(scaled), after, scaled=True) if scaled else None

    def parallel(self) -> tuple[Branch, Branch] | None:
        """Two branches that both read the block's input, in the order in which they ended."""
        outs = [p for p in self.parts if p.given is not None and p.given.shape == self.x.shape]
        pairs: list[tuple[Part, Part]] = []
        for a in outs:
            for b in outs:
                if a.ended < b.began and a.given is not None and b.given is not None and _adds_up(self.y, self.x, a.given, b.given):
                    pairs.append((a, b))
        if not pairs:
            return None
        a, b = max(pairs, key=lambda pair: (pair[0].ended, pair[1].ended))
        first = self._outermost([one for one, other in pairs if other is b and _same_given(one, a)])
        second = self._outermost([other for one, other in pairs if one is first and _same_given(other, b)])
        return Branch(first, self.call.began), Branch(second, first.ended)

    def _outermost(self, candidates: Sequence[Part]) -> Part:
        """Of the modules that return the same tensor: no dropout, one that runs as often as the block, and the last (outermost)."""
        runs = self.log.count[self.call.path]

        def rank(part: Part) -> tuple[bool, bool, int]:
            dropout = "dropout" in type(self.module(part)).__name__.lower()
            return self.log.count[part.path] == runs, not dropout, part.ended

        return max(candidates, key=rank)

    def scope(self, branch: Branch) -> list[Part]:
        """The parts that run for a branch."""
        return [p for p in self.parts if branch.after <= p.began and p.began < branch.part.ended]

    def role(self, branch: Branch) -> Role:
        """Whether a branch attends, mixes positions in another way, does both, or treats each position alone."""
        begin, end = branch.after, branch.part.ended
        modules = [self.module(part) for part in self.scope(branch)]
        recurs = any(_recurs(module) for module in modules)
        events = [event.at for event in self.log.attended if begin <= event.at <= end and event.inside.startswith(self.call.path)]
        if events:
            # What attention gives goes through its output matrix alone; more than that is another branch's work.
            late = [p for p in self.scope(branch) if p.began > events[-1] and p.ended <= end and linear_like(self.module(p))]
            outer = [p for p in late if not any(p.path.startswith(other.path + ".") for other in late)]
            return "several" if recurs or len(outer) > 1 else "attention"
        if recurs:
            return "mixer"
        if any("att" in type(module).__name__.lower() for module in modules):
            return "attention"  # of a kind that cannot be followed
        return "mixer" if any(isinstance(m, nn.Conv1d) and m.kernel_size != (1,) for m in modules) else "mlp"

    def worker(self, branch: Branch) -> str:
        """Class of the outermost module with parts of its own that runs for a branch."""
        inside = [p for p in self.scope(branch) if p.ended <= branch.part.ended and next(self.module(p).children(), None) is not None]
        return type(self.module(min(inside, key=lambda p: p.path.count(".")) if inside else branch.part)).__name__


def _same_given(a: Part, b: Part) -> bool:
    return a.given is not None and b.given is not None and _equal(a.given, b.given)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def _adds_up(target: Tensor, base: Tensor, *terms: Tensor) -> bool:
    """Whether a sum is the target up to rounding, unit by unit: a few huge units must not hide what is added elsewhere."""
    tensors = [x.float() if x.dtype != torch.float64 else x for x in (target, base, *terms)]
    if any(x.device != target.device for x in tensors):
        return False
    rounding = 8 * torch.finfo(target.dtype).eps * sum((x.abs() for x in tensors), torch.zeros_like(tensors[0]))
    error = (tensors[0] - sum(tensors[1:], torch.zeros_like(tensors[0]))).abs()
    seen = all(float((term.abs() > rounding).float().mean()) > 0.3 for term in tensors[2:])
    return seen and bool((error <= rounding).all())


def _scaled(given: Tensor, difference: Tensor) -> bool:
    """Whether a difference is an output times a constant, or times one constant for each unit."""
    g, d = given.float().flatten(0, -2), difference.float().flatten(0, -2)
    if g.shape[0] < 4:
        return False  # too few rows to tell
    factor = (g * d).sum(0) / (g * g).sum(0).clamp(min=1e-20)
    return same((g * factor).to(difference.dtype), d.to(difference.dtype))


# The parameters of which recurrences are made, and what classes of mixers without attention are called. (Names of families say nothing:
# a RecurrentGemmaMlp is an MLP.)
_DECAYS = ("A_log", "A", "dt_bias", "time_decay", "decay", "recurrent_param")
_MIXERS = ("deltanet", "linearattention", "lightning", "retention", "fourier", "hyena", "shortconv", "mlstm", "slstm")


def _recurs(module: nn.Module) -> bool:
    kind = type(module).__name__.lower()
    named = any(name in _DECAYS for name, _ in module.named_parameters(recurse=False))
    return named or isinstance(module, nn.RNNBase) or any(word in kind for word in _MIXERS)
