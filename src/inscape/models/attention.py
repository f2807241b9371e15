"""Attention patterns: caught while one attention module runs, from the very arguments of its own call, which goes on untouched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack  # pyright: ignore[reportPrivateUsage]

from inscape.errors import InscapeError

Shape = tuple[int, ...]
Paths = tuple[str, ...]

_SOFTMAX = ("softmax", "special_softmax")
_PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "bmm", "einsum", "baddbmm")
_HEADS_SIGNATURE = inspect.signature(F.multi_head_attention_forward)

RECOMPUTED = "softmax of the q, k, mask and scale that scaled_dot_product_attention is given, in fp32 or wider"
OWN = "attention's own softmax"


@dataclass
class Caught:
    """One attention that was seen.

    Attributes:
        how: where the numbers come from.
        shape: of the pattern as it was seen, before heads and stimuli are told apart.
        values: the pattern; `None` where only shapes are wanted.
        sure: it is known to multiply the values; a softmax alone may be something else.
        lost: columns that belong to no key (attention sinks, a zero key) and are left out.
        paths: the modules that were running, the outermost first.
        at: moment, on the clock of a dry run.
    """

    how: str
    shape: Shape
    values: Tensor | None = None
    sure: bool = True
    lost: int = 0
    paths: Paths = ()
    at: int = 0

    @property
    def path(self) -> str:
        """The innermost module that runs it."""
        return self.paths[-1] if self.paths else ""

    @property
    def note(self) -> str:
        """What must be known to read the numbers."""
        return self.how + ("; the column of the attention sink is left out, so rows sum to less than 1" if self.lost else "")


def attention_pattern(
    query: Tensor,
    key: Tensor,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The weights [..., heads, q, k] that `scaled_dot_product_attention` multiplies the values with, for the same arguments.

    Computed in fp32 (fp64 for fp64 queries), without dropout and without gradients. A query that may look at no key has zeros.
    """
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    device = query.device.type
    # Autocast would narrow the product; a watch of a module around this one must not take our softmax for the model's.
    plain = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
    with torch.no_grad(), torch._C.DisableTorchFunction(), plain:
        q, k = query.to(wide), key.to(wide)
        if enable_gqa and q.shape[-3] != k.shape[-3]:
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
        written_out = getattr(attn_mask, "_materialize", None)  # a CausalBias; importing its class would load the whole compiler
        if written_out is not None:
            attn_mask = written_out(query.device)
        if is_causal:
            # As torch aligns it: query i sees keys 0 to i, also where there are more keys than queries.
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores.masked_fill_(~allowed, -torch.inf)
        if attn_mask is not None:
            scores = scores.masked_fill_(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores.add_(attn_mask.to(wide))
        # In place, so that one layer's pattern is all the memory that this takes.
        top = scores.amax(-1, keepdim=True)
        scores.sub_(top.masked_fill_(top.isneginf(), 0.0)).exp_()
        total = scores.sum(-1, keepdim=True)
        return scores.div_(total.masked_fill_(total == 0, 1.0))


class Watch(TorchFunctionMode):
    """Sees every attention that runs while it is pushed, and changes nothing: each call goes on with the arguments it was made with.

    `scaled_dot_product_attention` and `multi_head_attention_forward` say what they do. Anything else is known by a softmax over the
    last axis, of which a later matrix product takes the result.

    Args:
        values: keep the patterns; otherwise their shapes.
        where: says which modules are running, and the moment; for dry runs.
    """

    def __init__(self, *, values: bool = True, where: Callable[[], tuple[Paths, int]] | None = None) -> None:
        super().__init__()
        self.values = values
        self.caught: list[Caught] = []
        self._where = where
        self._waiting: list[tuple[Caught, Tensor]] = []  # softmaxes that no product has taken yet

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._fused(args, kwargs)
        elif func is F.multi_head_attention_forward:
            self._heads(args, kwargs, result)
        else:
            name = getattr(func, "__name__", "")
            if name in _SOFTMAX:
                self._softmax(result, args, kwargs)
            elif self._waiting and name in _PRODUCTS:
                self._product(args)
        return result

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self._waiting.clear()

    def _add(self, caught: Caught) -> Caught:
        if self._where is not None:
            caught.paths, caught.at = self._where()
        self.caught.append(caught)
        return caught

    def _fused(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        query = args[0] if args else kwargs["query"]
        key = args[1] if len(args) > 1 else kwargs["key"]
        shape = (*query.shape[:-1], key.shape[-2])
        self._add(Caught(RECOMPUTED, tuple(shape), attention_pattern(*args, **kwargs) if self.values else None))

    def _heads(self, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        given = _HEADS_SIGNATURE.bind(*args, **kwargs).arguments
        query, key, heads = given["query"], given["key"], given["num_heads"]
        batch = (query.shape[1],) if query.ndim == 3 else ()
        given_keys = key.shape[0] if given.get("static_k") is None else given["static_k"].shape[1]
        extra = int(given.get("bias_k") is not None) + int(bool(given.get("add_zero_attn")))
        caught = self._add(Caught(OWN, (*batch, heads, query.shape[0], given_keys), lost=extra))
        if not self.values:
            return
        weights: Any = result[1]
        if weights is None or given.get("average_attn_weights", True):
            # Asked for once more, now with the weights of every head; the first call, whose output goes on, is as it was.
            again: dict[str, Any] = {**given, "need_weights": True, "average_attn_weights": False, "training": False}
            with torch.no_grad(), torch._C.DisableTorchFunction():
                weights = F.multi_head_attention_forward(**again)[1]
        caught.values = _wide(weights)[..., :given_keys]

    def _softmax(self, result: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        if not isinstance(result, Tensor) or result.ndim < 3 or axis not in (-1, result.ndim - 1):
            return
        # Copied: what follows (dropout, a head's mask) may write into it.
        values = _wide(result) if self.values else None
        self._waiting.append((self._add(Caught(OWN, tuple(result.shape), values, sure=False)), result))

    def _product(self, args: Sequence[Any]) -> None:
        operands = [part for arg in args for part in (arg if isinstance(arg, (tuple, list)) else (arg,)) if isinstance(part, Tensor)]
        for i in range(len(self._waiting) - 1, -1, -1):
            caught, result = self._waiting[i]
            lost = next((n for x in operands if (n := _taken(x, result)) is not None), None)
            if lost is None:
                continue
            del self._waiting[i]
            caught.sure = True
            if lost:
                caught.lost, caught.shape = lost, (*caught.shape[:-1], caught.shape[-1] - lost)
                caught.values = None if caught.values is None else caught.values[..., :-lost]
            if self._where is not None:  # it belongs to the module around both, not to an `nn.Softmax` inside
                now = self._where()[0]
                caught.paths = tuple(path for path, other in zip(caught.paths, now, strict=False) if path == other)
            return


def _wide(pattern: Tensor) -> Tensor:
    """A copy that is never narrower than fp32."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        return pattern.detach().to(pattern.dtype if pattern.dtype == torch.float64 else torch.float32, copy=True)


def _taken(x: Tensor, result: Tensor) -> int | None:
    """How many last columns of a softmax's `result` [..., q, k] a factor of a product lacks; `None` when it is another tensor."""
    with torch._C.DisableTorchFunction():
        q, k = result.shape[-2:]
        if x.ndim < 2 or x.numel() == 0:
            return None
        lead = result.numel() // max(1, q * k)
        if x.numel() == result.numel() and tuple(x.shape[-2:]) in ((q, k), (k, q)):
            return 0
        kept = x.shape[-1]
        if x.shape[-2] == q and 0 < k - kept <= 4 and x.numel() == lead * q * kept:
            # Columns without a key; which ones were dropped is read off the numbers.
            same = torch.equal(x.reshape(-1), result[..., :kept].to(x.dtype).reshape(-1)) if x.device == result.device else False
            return k - kept if same else None
    return None


def pop(watch: Watch) -> None:
    """Takes a watch off torch's stack of modes, and no other; nothing happens when it is not there."""
    above: list[TorchFunctionMode] = []
    while True:
        stack = _get_current_function_mode_stack()
        if watch not in stack:
            break
        top = stack[-1]
        top.__exit__(None, None, None)
        if top is watch:
            break
        above.append(top)
    for mode in reversed(above):
        mode.__enter__()


def only(caught: Sequence[Caught], path: str) -> Caught | str:
    """The one pattern among what was seen while the module at `path` ran once, or the reason why there is none."""
    sure = [one for one in caught if one.sure]
    if not sure:  # weights may meet the values in another way than a product; an axis for the heads shows what they are
        sure = [one for one in caught if len(one.shape) == 4]
    if len(sure) == 1:
        return sure[0]
    if sure:
        inner = list(dict.fromkeys(f"{one.path}:pattern" for one in sure if one.path not in ("", path)))
        named = f"; name one of its parts: {', '.join(map(repr, inner[:3]))}" if len(inner) > 1 else ""
        return f"{path or 'the model'!r} runs attention {len(sure)} times in one call{named}"
    return (
        f"{path or 'the model'!r} runs no attention whose pattern could be caught: neither scaled_dot_product_attention nor a softmax over "
        "keys (linear attention and state-space layers have no pattern; flash, flex and compiled attention keep theirs in a kernel: "
        "load the model with attn_implementation='sdpa' or 'eager')"
    )


def by_head(caught: Caught, path: str, heads: int | None, batch: int | None) -> Tensor:
    """The pattern as [b, heads, q, k].

    Args:
        caught: what was seen.
        path: the module, for messages.
        heads: how many there are, where a dry run has seen it.
        batch: how many stimuli the module was given, where that is known.

    Raises:
        InscapeError: heads and stimuli cannot be told apart.
    """
    pattern = caught.values
    assert pattern is not None
    shape = by_head_shape(tuple(pattern.shape), heads, batch)
    if shape is None:
        raise InscapeError(
            f"the attention of {path or 'the model'!r} gives a pattern of shape {list(pattern.shape)} for {batch} stimuli; "
            "expected [b, heads, q, k], so heads and stimuli cannot be told apart"
        )
    return pattern.reshape(shape)


def by_head_shape(shape: Shape, heads: int | None, batch: int | None) -> Shape | None:
    """The shape [b, heads, q, k] of a pattern that was seen with another one, or `None`."""
    if len(shape) == 4:
        if heads is not None and shape[1] != heads and shape[1] * shape[2] == heads:
            return shape[0], heads, 1, shape[3]  # a single query: the heads that share a key stand where queries would
        return shape
    if len(shape) != 3:
        return None
    stimuli = shape[0] // heads if heads is not None and shape[0] % heads == 0 else batch
    return None if not stimuli or shape[0] % stimuli else (stimuli, shape[0] // stimuli, *shape[1:])


def compiled_part(root: nn.Module, path: str) -> str | None:
    """The path of a compiled module around or inside the one at `path`, where Python no longer sees attention."""
    parts = path.split(".") if path else []
    around = [".".join(parts[:i]) for i in range(len(parts) + 1)]
    inside = [f"{path}.{name}" if path else name for name, _ in root.get_submodule(path).named_modules() if name]
    for place in [*around, *inside]:
        module: Any = root.get_submodule(place)
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module.forward, "_torchdynamo_orig_callable"):
            return place or "the model"
    return None
