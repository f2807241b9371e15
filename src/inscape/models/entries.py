"""Names of single entries of what a module takes or returns: `lstm:out.1.0` is the first part of the second thing that it returns."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from inscape.models.sites import Site, SiteInfo
from inscape.models.values import Layout, Pick


def split_port(port: str) -> tuple[str, Pick | None]:
    """The port that a name ends in, and the way to one entry behind it: `out.1.0` is ("out", (1, 0))."""
    word, dot, entry = port.partition(".")
    if not dot:
        return word, None
    return word, tuple(int(key) if key.isdigit() else key for key in entry.split("."))


def with_entry(site: Site, module: nn.Module, pick: Pick | None) -> Site:
    """The site of one entry. The last states of a recurrent layer, [layers, b, d], are one vector per stimulus."""
    if pick is None:
        return site
    state = isinstance(module, nn.RNNBase) and site.port == "out" and pick[0] == 1
    return replace(site, pick=pick, layout=Layout(layers_first=True) if state else site.layout, kind="vector" if state else site.kind)


def state_rows(name: str, path: str, module: nn.Module, batch: int | None) -> list[SiteInfo]:
    """What a recurrent layer returns beside its output, as rows of `Model.sites()`."""
    if not isinstance(module, nn.RNNBase):
        return []
    count = module.num_layers * (2 if module.bidirectional else 1)
    hidden = count * (module.proj_size or module.hidden_size)
    found = [("out.1", hidden, "last hidden state")]
    if isinstance(module, nn.LSTM):
        found = [("out.1.0", hidden, "last hidden state"), ("out.1.1", count * module.hidden_size, "last cell state")]
    parts = f"of {count} layers and directions, end to end" if count > 1 else "of the layer"
    return [
        SiteInfo(f"{name}:{port}", path, None if batch is None else (batch, width), "vector", "", f"{words} {parts}", canonical=False)
        for port, width, words in found
    ]
