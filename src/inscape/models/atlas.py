"""The map of one model: its canonical sites, its modules, and the shapes seen in a dry run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from inscape.errors import SiteNotFoundError, nearest
from inscape.models.attention_sites import attends, pattern_of
from inscape.models.dryrun import Record, block_lists, record
from inscape.models.layouts import layout_of
from inscape.models.names import CANONICAL_BLOCK, in_order, is_glob, matches, to_alias, to_canonical
from inscape.models.sites import Kind, Port, Site, SiteInfo, SiteTable
from inscape.models.structure import Structure, add_logits, analyze, block_ends
from inscape.models.values import Layout

_KINDS: dict[str, Kind] = {"text": "tokens", "image": "patches", "audio": "frames"}
_HOOK_EMBED = "hook_embed"
_LISTS = (nn.ModuleList, nn.ModuleDict)  # they hold modules and never run

# The site of the whole module's output, for modules without parts (a bare nn.LSTM) and wherever no part has this name.
WHOLE = "output"


class Atlas:
    """Resolves names to sites for one module.

    Args:
        root: the model.
        modality: "text", "image", "audio" or "tensor".
        config: its configuration, if it has one.
        trunk: path of the part without the head; "" when that is the whole model or unknown.
        has_trunk: whether a trunk-only pass exists.
    """

    def __init__(self, root: nn.Module, modality: str, config: Any, trunk: str, has_trunk: bool) -> None:
        self._root = root
        self._modality = modality
        self._config = config
        self._trunk = trunk
        self._has_trunk = has_trunk
        self._kind: Kind = "tokens"
        self.record: Record | None = None
        self.problem = ""
        self.structure = Structure()
        self.paths = [path for path, _ in root.named_modules() if path]

    def survey(self, attempts: Mapping[str, Callable[[], Any]], *, integers: bool) -> None:
        """Dry-runs the model on the first of `attempts` that works, and finds its canonical sites."""
        lists = block_lists(self._root)
        firsts = tuple(f"{path}.0." for path in lists)
        self._kind = _KINDS.get(self._modality, "tokens" if integers else "frames")
        self.problem = "no example input could be made for it; pass one: model.sites(example=batch)"
        for words, run in attempts.items():
            try:
                self.record = record(
                    self._root,
                    run,
                    keep=lambda path: path.startswith(firsts) or not _deep(path, lists),
                    jitter=lambda path: path.startswith(firsts),
                )
            except Exception as error:  # any model may refuse a made-up input, each in its own way
                self.problem = (
                    f"the dry run on {words} failed ({type(error).__name__}: {str(error)[:200]}); pass an input: model.sites(example=batch)"
                )
                continue
            self.record.example, self.problem = words, ""
            if self._modality not in _KINDS and len(self._shape("", "in") or ()) == 4:
                self._kind = "patches"  # pictures in, so what a transformer makes of them are patches
            break
        self.structure = self._analyze(lists)
        if self.record is not None:
            for call in self.record.calls:  # the tensors have served; keep the shapes only
                call.taken = call.given = None
            self.record.result = None

    def _analyze(self, lists: list[str]) -> Structure:
        if self.record is None:
            return block_ends(self._root, lists[0], self._kind) if lists else Structure()
        for path in lists:
            found = analyze(self._root, path, self.record, self._config, self._kind)
            if found is not None:
                break
        else:
            found = Structure()
            add_logits(self._root, self.record, self._kind, found)
            if not found.sites:
                found.missing.clear()  # a plain module lacks nothing
        order = sorted(found.sites, key=in_order)
        found.sites = {name: self._finish(found.sites[name]) for name in order}
        return found

    def _finish(self, site: Site) -> Site:
        outside = self._has_trunk and self._trunk != "" and site.path != self._trunk and not site.path.startswith(self._trunk + ".")
        return replace(site, needs_logits=site.needs_logits or outside)

    def _shape(self, path: str, port: str) -> tuple[int, ...] | None:
        if port == "pattern":
            found = pattern_of(self.record, path, layout_of(self._root, path, None).time_first) if self.record is not None else ""
            return None if isinstance(found, str) else found[1]
        call = self.record.first(path) if self.record is not None else None
        return None if call is None else call.given_raw if port == "out" else call.taken_raw

    def raw(self, name: str, path: str, port: Port, call: int | None = None) -> Site:
        """The site of a module, by its path."""
        if port == "pattern":
            return self._raw_pattern(name, path, call)
        shape = self._shape(path, port)
        layout = layout_of(self._root, path, shape)
        kind = self._kind
        if shape is not None and len(shape) <= 2:
            kind = "vector"
        elif shape is not None and len(shape) > 3:
            kind = "patches"
        return self._finish(Site(name, path, port, kind=kind, layout=layout, call=call))

    def _raw_pattern(self, name: str, path: str, call: int | None) -> Site:
        layout = Layout(time_first=layout_of(self._root, path, None).time_first)
        found = pattern_of(self.record, path, layout.time_first) if self.record is not None else ""
        heads, note = (None, "") if isinstance(found, str) else (found[1][1], found[0].note)
        return self._finish(Site(name, path, "pattern", kind=self._kind, layout=layout, call=call, heads=heads, note=note))

    def find(self, pattern: str, *, split_calls: bool) -> list[Site]:
        """The sites that a name or glob stands for; empty when there are none."""
        base, _, index = pattern.partition("#")
        base = self._from_the_end(to_canonical(base))
        if index == "" and base == _HOOK_EMBED:
            found = self._token_embedding(pattern)
            return [found] if found is not None else []
        known = self.structure.sites
        names = matches(base, known) if is_glob(base) else [base] if base in known else []
        if names and not index:
            return [known[name] for name in names]
        path, colon, port = base.partition(":")
        if colon and port not in ("in", "out", "pattern"):
            return []
        where: Port = "in" if port == "in" else "pattern" if port == "pattern" else "out"
        paths = matches(path, self.paths) if is_glob(path) else [path] if path in self.paths else []
        if path == WHOLE and WHOLE not in self.paths:
            paths = [""]
        if (is_glob(path) or where == "pattern") and self.record is not None:
            paths = [p for p in paths if self._shape(p, where) is not None]
        paths = [p for p in paths if not isinstance(self._root.get_submodule(p), _LISTS)]
        found_sites: list[Site] = []
        for p in paths:
            label = f"{p or WHOLE}:{port}" if colon else p or WHOLE
            count = self.record.count.get(p, 1) if self.record is not None else 1
            if index and index != "*":
                found_sites.append(
                    self.raw(f"{label}#{int(index)}", p, where, int(index)) if index.isdigit() else self.raw(label, p, where)
                )
            elif index == "*" or (split_calls and count > 1):
                found_sites += [self.raw(f"{label}#{k}", p, where, k) for k in range(count)]
            else:
                found_sites.append(self.raw(label, p, where))
        return found_sites

    def _from_the_end(self, name: str) -> str:
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == "blocks" and re.fullmatch(r"-\d+", parts[1]) and self.structure.blocks is not None:
            count = len(list(self._root.get_submodule(self.structure.blocks).children()))
            return f"blocks.{count + int(parts[1])}.{parts[2]}"
        return name

    def _token_embedding(self, name: str) -> Site | None:
        for path, module in self._root.named_modules():
            if isinstance(module, nn.Embedding):
                return self.raw(name, path, "out")
        site = self.structure.sites.get("embed")
        return None if site is None else replace(site, name=name)

    def missing(self, pattern: str) -> SiteNotFoundError:
        """The error for a name that stands for nothing, with the reason or the three nearest names."""
        name = self._from_the_end(to_canonical(pattern))
        why = self.structure.missing
        reason = why.get(name) or next((why[n] for n in matches(name, why)), None) if is_glob(name) else why.get(name)
        if reason:
            return SiteNotFoundError(f"this model has no site {pattern!r}: {reason}. Nearest: {nearest(name, [*self.structure.sites])}")
        bare = name.partition(":")[0].partition("#")[0]
        if bare in self.paths and isinstance(self._root.get_submodule(bare), _LISTS):
            first = next((f"{bare}.{child}" for child, _ in self._root.get_submodule(bare).named_children()), bare)
            return SiteNotFoundError(f"{pattern!r} is a list of modules, which itself never runs; name a member, such as {first!r}")
        if name.partition("#")[0].endswith(":pattern") and (bare in self.paths or bare == WHOLE) and self.record is not None:
            found = pattern_of(self.record, "" if bare == WHOLE else bare, False)
            return SiteNotFoundError(f"no site {pattern!r}: {found if isinstance(found, str) else 'it has no such call'}")
        if self.problem and name.split(".")[-1] in (*CANONICAL_BLOCK, "final_norm", "logits"):
            return SiteNotFoundError(f"site {pattern!r} cannot be located: {self.problem}")
        known = [*self.structure.sites, *self.paths, WHOLE]
        return SiteNotFoundError(f"unknown site {pattern!r}; nearest: {nearest(name, known)}. model.sites() lists all {len(known)}")

    def table(self, title: str) -> SiteTable:
        """All sites: canonical ones first, then every module."""
        rows: list[SiteInfo] = []
        for site in self.structure.sites.values():
            port = "" if site.port == "out" else f":{site.port}"
            rows.append(SiteInfo(site.name, (site.path or "(model)") + port, self.rows(site), site.kind, to_alias(site.name), site.note))
        for name, reason in self.structure.missing.items():
            rows.append(SiteInfo(name, "", None, "", to_alias(name), reason, available=False))
        if not self.paths:
            site = self.raw(WHOLE, "", "out")
            rows.append(SiteInfo(WHOLE, "(model)", self.rows(site), site.kind, "", "what the module returns", canonical=False))
        for path in self.paths:
            if self.record is not None and self._shape(path, "out") is None:
                continue  # a container, or a part that did not run
            site = self.raw(path, path, "out")
            count = self.record.count.get(path, 1) if self.record is not None else 1
            note = f"runs {count} times: name one as {path}#0" if count > 1 else ""
            if attends(self.record, path):
                note = f"{note}; attention pattern: {path}:pattern" if note else f"attention pattern: {path}:pattern"
            name = f"{path}:out" if path in self.structure.sites else path  # the canonical name wins, so the module needs another
            rows.append(SiteInfo(name, path, self.rows(site), site.kind, "", note, canonical=False))
        note = f"no shapes: {self.problem}" if self.record is None else f"shapes are for {self.record.example}"
        return SiteTable(rows, title=title, note=note)

    def rows(self, site: Site) -> tuple[int, ...] | None:
        """Shape of a site's activations for the example, if it was seen."""
        shape = self._shape(site.path, site.port)
        if shape is None or site.port == "pattern":
            return shape
        empty = Tensor.new_empty(next(iter(self._root.parameters()), Tensor()), shape, device="meta")
        return tuple(site.layout.read(empty).shape)


def _deep(path: str, lists: list[str]) -> bool:
    """Inside a block other than the first: only shapes are wanted there."""
    return any(path.startswith(f"{blocks}.") and path.count(".") > blocks.count(".") + 1 for blocks in lists)
