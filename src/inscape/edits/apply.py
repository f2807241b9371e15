"""`edit`: a context manager under which a model's activations are changed, and after which it is as before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from inscape.edits.base import Edit
from inscape.errors import EditError
from inscape.models import Model, Site, load
from inscape.models.hooks import Moment, Writer

Where = str | Site
What = Edit | Sequence[Edit]


class Edited:
    """Edits bound to sites of a model; a context manager that may be entered again and again.

    Attributes:
        model: the model that is edited.
        pairs: each site with its edit, in the order in which they act.
    """

    def __init__(self, model: Model, pairs: Sequence[tuple[Site, Edit]]) -> None:
        self.model = model
        self.pairs = tuple(pairs)
        self._open: list[ExitStack] = []

    def __enter__(self) -> Model:
        stack = ExitStack()
        stack.enter_context(self.model.written([(site, _writer(site, change)) for site, change in self.pairs]))
        self.model.edited.append(self)
        stack.callback(self.model.edited.remove, self)
        self._open.append(stack)
        return self.model

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.pop().close()

    def describe(self, values: bool = False) -> list[dict[str, Any]]:
        """Each edit as JSON-ready data, with its site; see `Edit.describe`."""
        return [{"site": site.name, **change.describe(values)} for site, change in self.pairs]

    def __repr__(self) -> str:
        return f"edit({self.model.name}: " + ", ".join(f"{site.name} ← {change!r}" for site, change in self.pairs) + ")"


def edit(model: Model | nn.Module | str, site: Where | Mapping[Where, What] | Sequence[tuple[Where, What]], change: Any = None) -> Edited:
    """Changes activations while a `with` block runs; afterwards, also after an error, the model is exactly what it was.

    Args:
        model: the model.
        site: a name or glob (every match is edited), or a mapping or list of pairs that gives several sites with their edits.
        change: the edit, or several that act one after the other; left out when `site` already gives them.

    Raises:
        SiteNotFoundError: there is no such site.
        EditError: an edit does not fit the site it is given for.

    Example:
        >>> with ix.edit(model, {"blocks.2.z": ix.edits.ablate(heads=[1]), "blocks.6.resid_post": ix.edits.add(v, scale=4)}):
        ...     model.generate("The film was")
    """
    loaded = load(model)
    if change is not None:
        if isinstance(site, Mapping) or not isinstance(site, (str, Site)):
            raise EditError("give either a site and its edit, or a mapping of sites to edits, not both")
        asked: list[tuple[Where, Any]] = [(site, change)]
    elif isinstance(site, Mapping):
        asked = list(site.items())
    elif isinstance(site, (str, Site)):
        raise EditError(f"no edit was given for site {site!r}; for instance ix.edits.add(vector)")
    else:
        asked = list(site)
    pairs: list[tuple[Site, Edit]] = []
    for where, what in asked:
        for place in loaded.resolve(where, split_calls=False):
            for one in what if isinstance(what, (list, tuple)) else [what]:
                if not isinstance(one, Edit):
                    shape = f" of shape {tuple(one.shape)}" if isinstance(one, Tensor) else ""
                    raise EditError(
                        f"expected an edit for site {place.name!r}, got {type(one).__name__}{shape}; for instance ix.edits.add(vector)"
                    )
                place.check_writable()
                one.check(place, loaded.width(place))
                pairs.append((place, one))
    if not pairs:
        raise EditError("there is nothing to edit: no site with an edit was given")
    return Edited(loaded, pairs)


def _writer(site: Site, change: Edit) -> Writer:
    def write(x: Tensor, moment: Moment) -> Tensor:
        return change.act(site, x, moment)

    return write
