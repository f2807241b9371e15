"""Stimuli as the model's own keyword arguments, padded batch by batch: one file for each kind of input."""

from __future__ import annotations

from inscape.capturing.feeds.array import ArrayFeed, as_picture
from inscape.capturing.feeds.batch import Batch, Feed, Pieces, Places, describe_shapes
from inscape.capturing.feeds.choose import feed_for
from inscape.capturing.feeds.stream import GridStream, Stream, TokenStream
from inscape.capturing.feeds.text import TextFeed

__all__ = [
    "ArrayFeed",
    "Batch",
    "Feed",
    "GridStream",
    "Pieces",
    "Places",
    "Stream",
    "TextFeed",
    "TokenStream",
    "as_picture",
    "describe_shapes",
    "feed_for",
]
