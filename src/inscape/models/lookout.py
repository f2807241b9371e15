"""Hooks that watch the attention of one module while it runs, and hand its pattern on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from inscape.errors import SiteNotFoundError
from inscape.models.attention import Watch, by_head, compiled_part, only, pop
from inscape.models.sites import Site
from inscape.models.values import get, locate


class Lookout:
    """Watches one module's attention: only while that module runs is torch's stack of function modes longer by one.

    Three hooks: one before the module pushes the watch, one after it takes the watch off (first of all hooks, and also when the module
    raised), and one after that, among the readers, hands the pattern on.
    """

    def __init__(self, site: Site, tap: Callable[[Tensor], None]) -> None:
        self.path, self.heads, self.time_first = site.path, site.heads, site.layout.time_first
        self.tap = tap
        self.running: list[tuple[Watch, int | None]] = []
        self.ready: tuple[Watch, int | None] | None = None

    def attach(self, module: nn.Module, stack: ExitStack) -> None:
        """Registers the hooks; `stack` removes them."""
        stack.callback(self.release)
        stack.callback(module.register_forward_pre_hook(self.before, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(self.after, prepend=True, always_call=True).remove)
        stack.callback(module.register_forward_hook(self.read).remove)

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Pushes a watch, last of all pre-hooks."""
        self.ready = None
        pick = locate((args, kwargs))
        given = get((args, kwargs), pick) if pick is not None else None
        size = given.shape[1 if self.time_first and given.ndim == 3 else 0] if isinstance(given, Tensor) and given.ndim > 1 else None
        watch = Watch()
        self.running.append((watch, size))
        watch.__enter__()

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Takes the watch off."""
        if self.running:
            self.ready = self.running.pop()
            pop(self.ready[0])

    def read(self, module: nn.Module, args: Any, output: Any) -> None:
        """Hands the pattern to the readers."""
        ready, self.ready = self.ready, None
        if ready is None:  # the hooks were registered while the module ran
            return
        watch, size = ready
        caught = only(watch.caught, self.path)
        if isinstance(caught, str):
            raise SiteNotFoundError(f"there is no attention pattern to read: {caught}")
        self.tap(by_head(caught, self.path, self.heads, size))

    def release(self) -> None:
        """Takes off watches of calls that never came to their end: what ends a pass early passes by the hooks after a module."""
        self.ready = None
        while self.running:
            pop(self.running.pop()[0])


@contextmanager
def watching(root: nn.Module, site: Site, tap: Callable[[Tensor], None], lookouts: list[Lookout]) -> Generator[None]:
    """Hands the pattern of a site to `tap` whenever its module runs; while this is open, `lookouts` holds what does so.

    Raises:
        SiteNotFoundError: the module is compiled, so that its attention runs unseen.
    """
    compiled = compiled_part(root, site.path)
    if compiled is not None:
        raise SiteNotFoundError(
            f"site {site.name!r} cannot be read: {compiled} is compiled in place, so attention runs outside Python; "
            "load the model before module.compile()"
        )
    lookout = Lookout(site, tap)
    with ExitStack() as stack:
        lookouts.append(lookout)
        stack.callback(lookouts.remove, lookout)
        lookout.attach(root.get_submodule(site.path), stack)
        yield
