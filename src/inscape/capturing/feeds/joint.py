"""Dual encoders: a text tower and a picture tower, each with what it reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.batch import Batch, Feed, Reading, wrong_kind
from inscape.capturing.feeds.image import image_feed
from inscape.capturing.feeds.stream import Stream
from inscape.capturing.feeds.text import TEXT_KINDS, text_feed
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model, Site


class JointFeed(Feed):
    """One feed per tower; a batch holds the same stimuli for all of them."""

    def __init__(self, model: str, parts: dict[str, Feed]) -> None:
        self.model, self.parts = model, parts
        self.default_tokens = next(iter(parts.values())).default_tokens if len(parts) == 1 or "" in parts else "mean"
        self._gather()

    def _gather(self) -> None:
        parts = list(self.parts.values())
        self.streams = {tower: stream for part in parts for tower, stream in part.streams.items()}
        self.pads = any(part.pads for part in parts)
        self.limits = Limits(min(part.limits.tokens for part in parts), min(part.limits.size for part in parts))

    def stream(self, site: Site) -> Stream:
        """What stands at the positions of a site.

        Raises:
            StimuliError: the site is in a tower that the stimuli do not reach.
        """
        if site.tower and site.tower not in self.parts:
            what = {"vision": "images", "text": "texts"}.get(site.tower, site.tower)
            raise StimuliError(
                f"site {site.name!r} is in the {site.tower} tower of {self.model}, and the stimuli have nothing for it; give {what}, "
                "or a table with the columns 'text' and 'image'"
            )
        return super().stream(site)

    def narrow(self, sites: Iterable[Site]) -> None:
        """Leaves out the towers in which nothing is read."""
        towers = {site.tower for site in sites}
        if "" in towers or not towers:
            return
        kept = {tower: part for tower, part in self.parts.items() if tower in towers}
        if kept:
            self.parts = kept
            self._gather()

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Lengths add up; a group is one that every tower agrees on."""
        loaded = [part.load(start, stop) for part in self.parts.values()]
        _, groups = np.unique(np.stack([groups for _, groups in loaded], 1), axis=0, return_inverse=True)
        return np.sum([lengths for lengths, _ in loaded], axis=0), groups.reshape(-1).astype(np.int64)

    def collate(self, members: np.ndarray) -> Batch:
        """One batch for all towers."""
        return self._merged([part.collate(members) for part in self.parts.values()])

    def shortest(self) -> int:
        """What the first tower would take."""
        return next(iter(self.parts.values())).shortest()

    def probe(self, where: int | None = None) -> Batch:
        """The probes of all towers, of one stimulus."""
        where = self.shortest() if where is None else where
        return self._merged([part.probe(where) for part in self.parts.values()])

    def _merged(self, batches: list[Batch]) -> Batch:
        inputs = {name: value for batch in batches for name, value in batch.inputs.items()}
        return Batch(batches[0].members, inputs, {tower: places for batch in batches for tower, places in batch.places.items()})

    def describe(self) -> dict[str, Any]:
        """What the first tower reads, which is the texts where there are any; the others under their names."""
        (_, first), *others = self.parts.items()
        return {**first.describe(), **{tower: part.describe() for tower, part in others}}


def dual_feed(model: Model, stimuli: Stimuli, names: list[str], reading: Reading) -> JointFeed:
    """Texts run the text tower, images the vision tower, a table with both columns runs both."""
    if reading.padding_side == "left":
        raise StimuliError(f"padding_side='left' does not suit {model.name}: its text tower counts positions from the left")
    texts = stimuli if stimuli.kind in TEXT_KINDS else stimuli.part("text") if stimuli.has("text") else None
    seen = stimuli.kind in ("image", "array") or stimuli.has("image")
    parts: dict[str, Feed] = {}
    if texts is not None:
        config = getattr(model.config, "text_config", None)
        # SigLIP reads its padding as text does, so every text must be as long as in its training.
        width = int(getattr(config, "max_position_embeddings", 64)) if "siglip" in model.family else None
        parts["text"] = text_feed(model, texts, names, reading, tower="text", config=config, width=width)
    if seen:
        parts["vision"] = image_feed(model, stimuli, names, tower="vision")
    if not parts:
        raise wrong_kind(model, stimuli, "texts, images, or a table with the columns 'text' and 'image'")
    return JointFeed(model.name, parts)
