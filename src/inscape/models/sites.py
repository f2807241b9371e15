"""A site: one named place in a network where activations are read or written."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from inscape.errors import EditError, InscapeError, SiteNotFoundError
from inscape.models.site_tree import WIDTH, Line, canonical_tree, draw, module_tree, plain
from inscape.models.values import Layout, Pick, get, locate, put

Kind = Literal["tokens", "patches", "frames", "vector"]
Port = Literal["out", "in", "pattern"]


PLAIN = Layout()


@dataclass(frozen=True)
class Site:
    """A place in a model: a module, its input or output, and which tensor of that is meant.

    Attributes:
        name: what the user calls it, such as `blocks.3.resid_post` or `transformer.h.3`.
        path: dotted path of the module ("" is the whole model).
        port: `"out"` for what the module returns, `"in"` for what it is given, `"pattern"` for the weights with which the attention that
            runs inside it mixes values.
        pick: the way to the tensor inside a tuple, dict or dataclass; `None` takes the first floating tensor.
        layout: how that tensor becomes rows.
        kind: what one row is.
        needs_logits: the module lies outside the trunk, so a trunk-only pass does not reach it.
        call: for a module that runs several times in one pass, which of the calls (counted from 0).
        heads: number of attention heads that the units are made of, where there are any.
        in_place: a new value is copied into the tensor itself, because the residual branch holds on to it.
        note: what must be known to read the numbers, such as "before rotary".
        grid: path of a module whose input has stimuli and positions on axes of their own, where the tensor itself has both on one.
        tower: the stack it belongs to in a model of several ("encoder", "decoder", "vision", "text"); "" for the main or only one.
    """

    name: str
    path: str
    port: Port = "out"
    pick: Pick | None = None
    layout: Layout = PLAIN
    kind: Kind = "tokens"
    needs_logits: bool = False
    call: int | None = None
    heads: int | None = None
    in_place: bool = False
    note: str = ""
    grid: str | None = None
    tower: str = ""

    def _pick(self, value: Any) -> Pick:
        pick = self.pick if self.pick is not None else locate(value)
        if pick is None:
            raise InscapeError(
                f"site {self.name!r}: the {self.port}put of module {self.path!r} holds no floating tensor "
                f"(it is {type(value).__name__}); choose a site further inside"
            )
        return pick

    def read(self, value: Any, grid: tuple[int, int] | None = None) -> Tensor:
        """The activations in what the module took or returned: `[b, t, d]`, or `[b, d]` for one vector per stimulus.

        For the port "in", `value` is the pair `(args, kwargs)` of the call; for the port "pattern" it is the pattern
        `[b, heads, q, k]`, which comes back as it is. The result may be a view of the model's own memory, which later layers may
        change: copy what is kept. `grid` gives the sizes of the first two axes of `Site.grid`'s input, where the site has one.
        """
        if self.port == "pattern":
            return value
        found = value if isinstance(value, Tensor) and self.pick is None else self._entry(value)
        return self.layout.read(found if self.grid is None else self._unfolded(found, grid))

    def _entry(self, value: Any) -> Any:
        pick = self._pick(value)
        try:
            found = get(value, pick)
        except (IndexError, KeyError, AttributeError, TypeError):
            found = None
        if not isinstance(found, Tensor | PackedSequence):
            way = ".".join(str(key) for key in pick)
            held = "nothing" if found is None else f"a {type(found).__name__}"
            raise SiteNotFoundError(
                f"site {self.name!r}: the {self.port}put of module {self.path!r} is a {type(value).__name__} with {held} at {way!r}; "
                "expected a tensor"
            )
        return found

    def _unfolded(self, value: Tensor, grid: tuple[int, int] | None) -> Tensor:
        if grid is None or value.shape[0] != grid[0] * grid[1]:
            raise InscapeError(
                f"site {self.name!r}: the {self.port}put of module {self.path!r} has shape {list(value.shape)}, stimuli and positions on "
                f"one axis; expected {'×'.join(map(str, grid)) if grid else 'as many'} of them as {self.grid!r} was given"
            )
        return value.unflatten(0, grid)

    def check_writable(self) -> None:
        """Raises `EditError` when what stands here is only read, as an attention pattern is."""
        if self.port == "pattern":
            raise EditError(
                f"site {self.name!r} is computed beside the model's own attention, so a change of it would have no effect; edit what heads "
                "give (`blocks.i.z`, for instance ix.edits.ablate(heads=[1])) or what attention adds (`blocks.i.attn_out`)"
            )

    def write(self, value: Any, new: Tensor, grid: tuple[int, int] | None = None) -> Any:
        """The same container with the activations replaced by `new`.

        Raises:
            EditError: the site is an attention pattern, which nothing reads.
        """
        self.check_writable()
        pick = self._pick(value)
        old = get(value, pick)
        changed = self.layout.write(old, new) if self.grid is None else self.layout.write(self._unfolded(old, grid), new).flatten(0, 1)
        if self.in_place:
            old.copy_(changed)
            return value
        return put(value, pick, changed)


@dataclass(frozen=True)
class SiteInfo:
    """One row of `Model.sites()`.

    Attributes:
        name: canonical name or module path.
        path: where it is taken (`path` or `path:in`); empty when it is not available.
        shape: shape of its rows for the example input, `None` when no example could be run.
        kind: tokens, patches, frames or vector.
        alias: the TransformerLens name of the same tensor, if there is one.
        note: what must be known to read the numbers; for a site that is not available, why.
        available: whether it can be read.
        canonical: whether it is one of the names that all transformers share.
    """

    name: str
    path: str
    shape: tuple[int, ...] | None
    kind: str
    alias: str = ""
    note: str = ""
    available: bool = True
    canonical: bool = True


class SiteTable(Sequence[SiteInfo]):
    """The sites of a model as a table that prints itself; a sequence of `SiteInfo`.

    Attributes:
        note: what the shapes were taken from, or why there are none.
    """

    def __init__(self, rows: Sequence[SiteInfo], *, title: str = "", note: str = "") -> None:
        self._rows = tuple(rows)
        self.title = title
        self.note = note

    def __getitem__(self, index: Any) -> Any:
        return SiteTable(self._rows[index], title=self.title, note=self.note) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SiteInfo]:
        return iter(self._rows)

    @property
    def names(self) -> list[str]:
        """Names of the sites that can be read."""
        return [row.name for row in self._rows if row.available]

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.name,
                row.path if row.available else "not available",
                "" if row.shape is None else "×".join(map(str, row.shape)),
                row.kind if row.available else "",
                row.alias,
                row.note,
            )
            for row in self._rows
        ]

    def tree(self, *, every: bool = False, modules: bool = True, width: int = WIDTH) -> str:
        """The table as a tree of text: canonical names, then the modules as they lie inside one another.

        Args:
            every: draws each block; by default blocks that differ only in their number share a branch.
            modules: draws the modules, too; without canonical names they are drawn in any case.
            width: columns to stay within.
        """
        return plain(self._lines(every=every, modules=modules, width=width))

    def _lines(self, *, every: bool = False, modules: bool = True, width: int = WIDTH) -> list[Line]:
        """The lines of `tree`, each as pieces of text with what they are: guide, branch, name, shape, where, note, missing or title."""
        canonical, inner = canonical_tree(self._rows, every=every), module_tree(self._rows, every=every)
        lines = [[(self.title, "title")]] if self.title else []
        lines += draw(canonical, width=width)
        if inner and (modules or not canonical):
            lines += [*([[("", "")], [("modules", "title")]] if canonical else []), *draw(inner, width=width)]
        return [*lines, *([[(self.note, "note")]] if self.note else [])]

    def __repr__(self) -> str:
        return self.tree()

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{text}</th>" for text in ("site", "taken at", "shape", "rows", "TransformerLens", "note"))
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._cells())
        return f"<p>{html.escape(self.title)}</p><table><tr>{head}</tr>{body}</table><p>{html.escape(self.note)}</p>"
