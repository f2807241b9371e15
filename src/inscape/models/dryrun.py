"""One tiny forward pass that records what every module takes and returns: the ground for shapes and canonical names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.attended import Attended, Operands
from inscape.models.attention import Caught, Watch
from inscape.models.values import get, locate

Shape = tuple[int, ...]


# What a dry run keeps of blocks beyond those that it must look into.
SPARE_BYTES = 2**28


@dataclass
class Call:
    """One run of one module inside the dry run.

    Attributes:
        path: dotted path of the module.
        began: place in the order of all beginnings and endings.
        ended: likewise; -1 while it runs.
        taken: its first floating input, where kept.
        given: its first floating output, where kept.
        taken_raw: shape of that input.
        given_raw: shape of that output.
    """

    path: str
    began: int
    ended: int = -1
    taken: Tensor | None = None
    given: Tensor | None = None
    taken_raw: tuple[int, ...] | None = None
    given_raw: tuple[int, ...] | None = None


@dataclass
class Record:
    """All calls of a dry run, in the order in which the modules began.

    Attributes:
        calls: the runs of modules.
        count: number of runs by path.
        example: in words, the input that was used.
        attention: every attention that ran, by its shape.
        attended: the queries, keys and values of attention where tensors are kept, in the order in which it ran.
        unwatched: why nothing is known of attention; empty where it was watched.
        reads: for a model that was run in several passes, which of these a module ran in.
        results: what the model returned, by what it read ("text", "image", "audio", or "" for all at once).
        resized: for models of maps, the shapes `(input, output)` of every module in a second run on inputs of another size.
        turned: `(t, b)`, the sizes of the token ids that were run, turned around: a tensor that begins so puts time first.
    """

    calls: list[Call] = field(default_factory=lambda: [])
    count: dict[str, int] = field(default_factory=lambda: {})
    example: str = ""
    result: Any = None
    attention: list[Caught] = field(default_factory=lambda: [])
    attended: list[Attended] = field(default_factory=lambda: [])
    unwatched: str = ""
    reads: dict[str, str] = field(default_factory=lambda: {})
    results: dict[str, Any] = field(default_factory=lambda: {})
    resized: dict[str, tuple[Shape | None, Shape | None]] = field(default_factory=lambda: {})
    turned: Shape | None = None

    def join(self, other: Record) -> None:
        """Adds a pass over other inputs of the same model, as if it had followed."""
        start = 1 + max((call.ended for call in self.calls), default=0)
        for call in other.calls:
            call.began, call.ended = call.began + start, call.ended + start
        for event in (*other.attention, *other.attended):
            event.at += start
        self.calls += other.calls
        self.count = {path: max(self.count.get(path, 0), other.count.get(path, 0)) for path in {**self.count, **other.count}}
        self.attention += other.attention
        self.attended += other.attended
        self.unwatched = self.unwatched or other.unwatched
        self.reads.update({path: what for path, what in other.reads.items() if path not in self.reads})
        self.results.update(other.results)
        self.resized.update(other.resized)
        self.example += f" and {other.example}"

    def forget_tensors(self) -> None:
        """Keeps the shapes only: the tensors have served."""
        for call in self.calls:
            call.taken = call.given = None
        self.attended.clear()
        self.results.clear()
        self.result = None

    def puts_time_first(self, shape: Shape | None) -> bool:
        """Whether a tensor [t, b, d] of this shape has its axes the other way round than the token ids [b, t]."""
        return self.turned is not None and shape is not None and len(shape) == 3 and shape[:2] == self.turned

    def first(self, path: str) -> Call | None:
        """The first run of a module, if it ran."""
        return self.run_of(path, 0)

    def run_of(self, path: str, nth: int) -> Call | None:
        """The run of a module with this number, counted from 0, if there was one."""
        return next(itertools.islice((call for call in self.calls if call.path == path), nth, None), None)


def linear_like(module: nn.Module) -> bool:
    """Whether a module is one affine map of the last axis (`nn.Linear`, its quantized forms, GPT-2's `Conv1D`)."""
    if isinstance(module, nn.Embedding):
        return False
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
        return True
    # Layers of packed integers give their weight by a method, and adapters around a layer give that layer's.
    return hasattr(module, "in_features") and ((isinstance(weight, Tensor) and weight.ndim == 2) or callable(weight))


def record(
    root: nn.Module,
    run: Callable[[], Any],
    keep: Callable[[str], bool],
    jitter: Callable[[str], bool],
    also: Callable[[str], bool] = lambda path: False,
) -> Record:
    """Runs the model once and records it.

    Args:
        root: the model.
        run: calls it on the example.
        keep: paths whose tensors are kept, not only their shapes.
        also: further paths whose tensors are kept, in the order in which they run, as long as they take no more than `SPARE_BYTES`.
        jitter: paths of affine maps whose output gets fixed noise, so that a zero-initialized branch still shows.
    """
    log = Record()
    open_calls: list[Call] = []
    clock = iter(range(10**9))
    generator = torch.Generator().manual_seed(0)
    spare = SPARE_BYTES

    def kept(path: str, size: int = 0) -> bool:
        nonlocal spare
        if keep(path):
            return True
        if spare <= 0 or not also(path):
            return False
        spare -= size
        return True

    def note(tensor: Any, path: str) -> tuple[Tensor | None, tuple[int, ...] | None]:
        pick = locate(tensor)
        if pick is None:
            return None, None
        found = get(tensor, pick)
        if not isinstance(found, Tensor):  # a packed sequence
            found = found.data
        return (found.detach().clone() if kept(path, found.nbytes) else None), tuple(found.shape)

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = Call(path, next(clock))
            call.taken, call.taken_raw = note((args, kwargs), path)
            log.calls.append(call)
            log.count[path] = log.count.get(path, 0) + 1
            open_calls.append(call)

        return hook

    def after(path: str, module: nn.Module) -> Callable[..., Any]:
        noisy = jitter(path) and linear_like(module)

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if noisy and isinstance(output, Tensor) and output.is_floating_point():
                scale = float(output.detach().float().std().nan_to_num()) or 1.0
                noise = torch.randn(output.shape, generator=generator) * (0.3 * scale)
                output = output + noise.to(output.device, output.dtype)
            while open_calls:  # calls above this one were left by an exception that the model caught
                call = open_calls.pop()
                if call.path == path:
                    call.ended = next(clock)
                    call.given, call.given_raw = note(output, path)
                    break
            return output

        return hook

    with ExitStack() as stack, torch.no_grad():
        for path, module in root.named_modules():
            stack.callback(module.register_forward_pre_hook(before(path), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after(path, module)).remove)
        watch = Watch(values=False, where=lambda: (tuple(call.path for call in open_calls), next(clock)))
        operands = Operands(lambda: (open_calls[-1].path if open_calls else "", next(clock)), kept)
        try:
            if any(getattr(module, "_compiled_call_impl", None) is not None for module in root.modules()):
                log.unwatched = "a part of the model is compiled in place, so attention may run outside Python"
                log.result = run()
            else:
                with watch, operands:
                    log.result = run()
        except Exception as error:
            if log.unwatched:
                raise
            # Not every kernel stands being watched (flex attention compiles what surrounds it); once more, without.
            log.unwatched = f"attention could not be watched: {type(error).__name__}: {str(error)[:100]}"
            log.calls.clear()
            log.count.clear()
            open_calls.clear()
            generator.manual_seed(0)
            log.result = run()
    log.attention = [] if log.unwatched else watch.caught
    log.attended = [] if log.unwatched else operands.seen
    log.calls = [call for call in log.calls if call.ended >= 0]
    return log


def block_lists(root: nn.Module) -> list[str]:
    """Paths of lists of blocks of one class, the likeliest residual stack first.

    A list counts when its members have parts of their own. Those that hold attention come first, decoders that read an encoder
    last, then the longer, then the larger.
    """
    ranked: list[tuple[bool, bool, int, int, str]] = []
    for path, module in root.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) == 0:
            continue
        members = list(module)
        if not _of_one_family(members) or any(next(member.children(), None) is None for member in members):
            continue
        inner = [(name, part) for name, part in members[0].named_modules()]
        attends = any("att" in name.lower() or isinstance(part, nn.MultiheadAttention) for name, part in inner)
        size = sum(parameter.numel() for parameter in module.parameters())
        second = "decoder" in path and any("encoder" in other for other, _ in root.named_modules())
        ranked.append((attends, not second, len(members), size, path))
    ranked.sort(key=lambda row: row[:4], reverse=True)
    return [path for *_, path in ranked]


def _of_one_family(members: list[nn.Module]) -> bool:
    """Whether all are of one class, or of classes with a base of their own: a hybrid's blocks with attention and without."""
    shared = set(type(members[0]).__mro__).intersection(*(type(member).__mro__ for member in members))
    return len({type(member) for member in members}) == 1 or bool(shared - set(nn.ModuleList.__mro__) - set(nn.Sequential.__mro__))


def guesses(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Inputs to try on a module that says nothing about itself, from its first layer."""
    generator = torch.Generator().manual_seed(0)
    for module in root.modules():
        if isinstance(module, nn.Embedding):
            ids = torch.randint(0, module.num_embeddings, (2, 6), generator=generator)
            yield f"token ids of shape {tuple(ids.shape)}", ids
            return
        if isinstance(module, nn.Conv2d):
            for size in (8, 16, 28, 32, 64, 224):
                yield _floats(generator, 2, module.in_channels, size, size)
            return
        if isinstance(module, nn.Conv1d):
            for size in (64, 1024, 8192):
                yield _floats(generator, 2, module.in_channels, size)
            return
        if isinstance(module, nn.RNNBase):
            yield _floats(generator, 2, 5, module.input_size)
            return
        if isinstance(module, nn.Linear):
            yield _floats(generator, 2, module.in_features)
            yield _floats(generator, 2, 5, module.in_features)
            return
        if isinstance(module, (nn.TransformerEncoderLayer, nn.MultiheadAttention)):
            width = module.embed_dim if isinstance(module, nn.MultiheadAttention) else module.self_attn.embed_dim
            yield _floats(generator, 2, 5, width)
            return


def _floats(generator: torch.Generator, *shape: int) -> tuple[str, Tensor]:
    return f"random numbers of shape {shape}", torch.randn(*shape, generator=generator)
