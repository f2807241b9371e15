"""Which feed a model and its stimuli need."""

from __future__ import annotations

from inscape.capturing.feeds.array import tensor_feed
from inscape.capturing.feeds.batch import Feed, forward_names
from inscape.capturing.feeds.image import image_feed
from inscape.capturing.feeds.sound import sound_feed
from inscape.capturing.feeds.text import text_feed
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model
from inscape.models.companions import own_tokenizer


def feed_for(model: Model, stimuli: Stimuli, *, max_length: int | None, special: str, padding_side: str) -> Feed:
    """The feed for a model and its stimuli.

    Raises:
        StimuliError: the model does not read stimuli of this kind.
    """
    if padding_side not in ("right", "left"):
        raise StimuliError(f"padding_side={padding_side!r} is unknown; expected 'right' or 'left'")
    if stimuli.kind in ("text", "chat") and model.tokenizer is None:
        model.tokenizer = own_tokenizer(model)
    names = forward_names(model.module)
    custom = model.forward is not None
    modality = str(model.modality)
    if modality == "text" or (modality == "tensor" and stimuli.kind == "text"):
        return text_feed(model, stimuli, names, custom, max_length, special, padding_side)
    if max_length is not None:
        raise StimuliError(f"max_length cuts texts; this model reads {modality} input")
    if modality == "image":
        return image_feed(model, stimuli, names)
    if modality == "audio":
        return sound_feed(model, stimuli, names)
    return tensor_feed(model, stimuli, names)
