"""Whether a module's tensors put channels or time before the rest, decided from the module's parts."""

from __future__ import annotations

from torch import nn

from inscape.models.values import Layout

_CHANNELS_FIRST = (
    *("Conv1d", "Conv2d", "Conv3d", "ConvTranspose", "PixelShuffle", "Upsample", "ChannelShuffle"),
    *("BatchNorm", "InstanceNorm", "GroupNorm", "LocalResponseNorm", "Dropout1d", "Dropout2d", "Dropout3d"),
    *("MaxPool", "AvgPool", "AdaptiveMaxPool", "LPPool"),
)
_MIXES_LAST_AXIS = (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)


def _channels_leaf(module: nn.Module) -> bool:
    return any(word in type(module).__name__ for word in _CHANNELS_FIRST)


def _channels_first(root: nn.Module, path: str) -> bool:
    module = root.get_submodule(path)
    parts = list(module.modules())
    if len(parts) == 1:
        if _channels_leaf(module):
            return True
        if path == "" or any(True for _ in module.parameters()):
            return False
        # An activation keeps the layout of its neighbors: what holds for the module around it holds for it.
        return _channels_first(root, path.rpartition(".")[0]) if path.rpartition(".")[0] else _only_channels(root)
    return _only_channels(module)


def _only_channels(module: nn.Module) -> bool:
    parts = list(module.modules())
    return any(_channels_leaf(part) for part in parts) and not any(isinstance(part, _MIXES_LAST_AXIS) for part in parts)


def _in_feature_stack(root: nn.Module, path: str) -> bool:
    """A part without weights of its own, in a network whose classifier is linear but whose other parts are channels first."""
    module = root.get_submodule(path)
    return path.count(".") == 0 and not any(True for _ in module.parameters()) and any(_channels_leaf(part) for part in root.children())


def _time_first(root: nn.Module, path: str) -> bool:
    module = root.get_submodule(path)
    inner = module
    if isinstance(module, nn.TransformerEncoder):
        inner = module.layers[0]
    attention = getattr(inner, "self_attn", inner)
    return getattr(attention, "batch_first", True) is False


def _by_size(shape: tuple[int, ...] | None, other: tuple[int, ...] | None) -> bool | None:
    """Whether the axis that kept its size in a run on other sizes, the channels, comes before those that did not; `None` when unclear."""
    if shape is None or other is None or len(shape) != len(other) or len(shape) < 3:
        return None
    kept = [axis for axis in range(1, len(shape)) if shape[axis] == other[axis]]
    return kept == [1] if len(kept) == 1 else None


def layout_of(root: nn.Module, path: str, shape: tuple[int, ...] | None, other: tuple[int, ...] | None = None) -> Layout:
    """The layout of a module's tensors.

    Four axes from a module without a last-axis map are `[b, c, h, w]`; an activation at the top level of a network of convolutions is, too.

    Args:
        root: the model.
        path: of the module.
        shape: of its tensor in the dry run, if it was seen.
        other: of the same tensor in a run on inputs of another size, which shows the axis of the channels.
    """
    if _time_first(root, path):
        return Layout(time_first=True)
    shown = _by_size(shape, other)
    if shown is not None:
        return Layout(channels_first=shown)
    first = _channels_first(root, path) or (_in_feature_stack(root, path) and (shape is None or len(shape) > 3))
    return Layout(channels_first=first)
