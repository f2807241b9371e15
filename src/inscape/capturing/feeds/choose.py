"""Which feed a model and its stimuli need."""

from __future__ import annotations

from inscape.capturing.feeds.batch import Feed, Reading, forward_names
from inscape.capturing.feeds.decoder import decoder_feed
from inscape.capturing.feeds.diffusion import diffusion_feed, time_argument
from inscape.capturing.feeds.image import image_feed
from inscape.capturing.feeds.joint import dual_feed
from inscape.capturing.feeds.pairs import image_token, pair_feed
from inscape.capturing.feeds.sequence import tensor_feed
from inscape.capturing.feeds.sound import sound_feed
from inscape.capturing.feeds.text import TEXT_KINDS, text_feed
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model
from inscape.models.companions import own_tokenizer


def feed_for(
    model: Model,
    stimuli: Stimuli,
    *,
    max_length: int | None,
    special: str,
    padding_side: str,
    truncation_side: str | None = None,
    whole: bool = False,
) -> Feed:
    """The feed for a model and its stimuli.

    Raises:
        StimuliError: the model does not read stimuli of this kind.
    """
    if padding_side not in ("right", "left"):
        raise StimuliError(f"padding_side={padding_side!r} is unknown; expected 'right' or 'left'")
    reading = Reading(max_length, special, padding_side, truncation_side, whole)
    names = forward_names(model.module)
    modality = str(model.modality)
    plain = model.forward is None and model.config is not None
    if stimuli.kind in ("text", "chat") and model.tokenizer is None and getattr(model.processor, "tokenizer", None) is None:
        model.tokenizer = own_tokenizer(model)
    if plain and {"input_ids", "pixel_values"} <= set(names):
        return (dual_feed if image_token(model.config) is None else pair_feed)(model, stimuli, names, reading)
    if modality == "text" or (modality == "tensor" and stimuli.kind in ("text", "chat")):
        feed: Feed = text_feed(model, stimuli, names, reading)
    elif stimuli.kind in TEXT_KINDS and modality == "multimodal":
        feed = text_feed(model, stimuli, names, reading)
    else:
        for name, value in (("max_length", max_length), ("truncation_side", truncation_side)):
            if value is not None and "decoder_input_ids" not in names:
                raise StimuliError(f"{name} cuts texts; this model reads {modality} input")
        if modality == "image":
            feed = image_feed(model, stimuli, names)
        elif modality in ("audio", "multimodal"):
            feed = sound_feed(model, stimuli, names)
        else:
            time = time_argument(model, stimuli, names)
            return tensor_feed(model, stimuli, names) if time is None else diffusion_feed(model, stimuli, names, time)
    return decoder_feed(model, stimuli, names, reading, feed) if plain and "decoder_input_ids" in names else feed
