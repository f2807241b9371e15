"""The map of one model: its canonical sites, its modules, and the shapes seen in a dry run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from inscape.errors import SiteNotFoundError, nearest
from inscape.models.attention_sites import attends, pattern_of
from inscape.models.dryrun import Record
from inscape.models.entries import split_port, state_rows, with_entry
from inscape.models.examples import Pass
from inscape.models.layouts import layout_of
from inscape.models.names import CANONICAL_BLOCK, is_glob, matches, to_alias, to_canonical
from inscape.models.sites import Kind, Port, Site, SiteInfo, SiteTable
from inscape.models.structure import Structure
from inscape.models.survey import dry_run
from inscape.models.tower_sites import find_towers
from inscape.models.towers import Tower, Towers
from inscape.models.values import Layout

_KINDS: dict[str, Kind] = {"text": "tokens", "image": "patches", "audio": "frames", "multimodal": "tokens"}
_HOOK_EMBED = "hook_embed"
_LISTS = (nn.ModuleList, nn.ModuleDict)  # they hold modules and never run

# The site of the whole module's output, for modules without parts (a bare nn.LSTM) and wherever no part has this name.
WHOLE = "output"


class Atlas:
    """Resolves names to sites for one module.

    Args:
        root: the model.
        modality: "text", "image", "audio", "multimodal" or "tensor".
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
        self.form: tuple[Any, ...] = ()  # of the input, where a single one was run
        self.stacks = Towers()
        self.paths = [path for path, _ in root.named_modules() if path]

    @property
    def structure(self) -> Structure:
        """The canonical sites of all stacks."""
        return self.stacks.structure

    def survey(self, plans: Iterable[list[Pass]], run: Callable[[Any], Any], *, integers: bool) -> None:
        """Dry-runs the model by the first of `plans` of which every pass works, and finds its canonical sites."""
        self._kind = _KINDS.get(self._modality, "tokens" if integers else "frames")
        self.record, self.problem, self.form = dry_run(self._root, plans, run)
        if self.record is not None and self._modality not in _KINDS and len(self._shape("", "in") or ()) == 4:
            self._kind = "patches"  # pictures in, so what a transformer makes of them are patches
        self.stacks = find_towers(self._root, self.record, self._config, self._kind)
        sites = self.structure.sites
        sites.update({name: self._finish(site) for name, site in sites.items()})
        within = getattr(self._root, "canonical_within", None)
        for name in [name for name, site in sites.items() if within and not f"{site.path}.".startswith(f"{within}.")]:
            del sites[name]
        for name, path in getattr(self._root, "named_outputs", {}).items():  # of wrappers that know what they return
            sites[name] = Site(name, path, kind="vector")
        if self.record is not None:
            self.record.forget_tensors()

    def head_fails(self, problem: str) -> None:
        """Notes that only the trunk could be surveyed, since the whole does not run on the example."""
        self.problem = self.structure.missing["logits"] = problem

    def _finish(self, site: Site) -> Site:
        outside = self._has_trunk and self._trunk != "" and site.path != self._trunk and not site.path.startswith(self._trunk + ".")
        return replace(site, needs_logits=site.needs_logits or outside)

    def _shape(self, path: str, port: str, nth: int | None = None) -> tuple[int, ...] | None:
        if port == "pattern":
            found = (
                pattern_of(self.record, path, self._layout(path, "in", self._shape(path, "in")).time_first)
                if self.record is not None
                else ""
            )
            return None if isinstance(found, str) else found[1]
        call = self.record.run_of(path, nth or 0) if self.record is not None else None
        return None if call is None else call.given_raw if port == "out" else call.taken_raw

    def raw(self, name: str, path: str, port: Port, call: int | None = None) -> Site:
        """The site of a module, by its path."""
        if port == "pattern":
            return self._raw_pattern(name, path, call)
        shape = self._shape(path, port, call)
        layout = self._layout(path, port, shape)
        tower = self.stacks.at(path, shape, self.record.reads.get(path, "") if self.record is not None else "")
        kind = self._kind if tower is None else tower.kind
        if shape is not None and len(shape) <= 2:
            kind = "vector"
        elif shape is not None and len(shape) > 3:
            kind = "patches"
        return self._finish(Site(name, path, port, kind=kind, layout=layout, call=call, tower="" if tower is None else tower.name))

    def _layout(self, path: str, port: str, shape: tuple[int, ...] | None) -> Layout:
        if self.record is not None and self.record.puts_time_first(shape):
            return Layout(time_first=True)
        other = self.record.resized.get(path) if self.record is not None else None
        return layout_of(self._root, path, shape, None if other is None else other[0 if port == "in" else 1])

    def _raw_pattern(self, name: str, path: str, call: int | None) -> Site:
        layout = Layout(time_first=self._layout(path, "in", self._shape(path, "in")).time_first)
        found = pattern_of(self.record, path, layout.time_first) if self.record is not None else ""
        heads, note = (None, "") if isinstance(found, str) else (found[1][1], found[0].note)
        tower = self.stacks.at(path)
        kind, home = (self._kind, "") if tower is None else (tower.kind, tower.name)
        return self._finish(Site(name, path, "pattern", kind=kind, layout=layout, call=call, heads=heads, note=note, tower=home))

    def find(self, pattern: str, *, split_calls: bool) -> list[Site]:
        """The sites that a name or glob stands for; empty when there are none."""
        base, _, index = pattern.partition("#")
        base = self._from_the_end(to_canonical(base))
        if index == "" and base == _HOOK_EMBED:
            found = self._token_embedding(pattern)
            return [found] if found is not None else []
        found_named = self._named(base)
        if found_named and not index:
            return found_named
        path, colon, port = base.partition(":")
        word, entry = split_port(port)
        if colon and word not in ("in", "out", "pattern"):
            return []
        port = word if entry is None else port
        where: Port = "in" if word == "in" else "pattern" if word == "pattern" else "out"
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
        return [with_entry(site, self._root.get_submodule(site.path), entry) for site in found_sites]

    def _named(self, name: str) -> list[Site]:
        """The canonical sites of a name or glob. The main stack also goes by its own name, which the sites then keep."""
        known = self.structure.sites
        prefixes = tuple(prefix for prefix in self.stacks.prefixes if prefix)
        also = {f"{site.tower}.{each}": site for each, site in known.items() if site.tower and not each.startswith(prefixes)}
        if not is_glob(name):
            return [known[name]] if name in known else [replace(also[name], name=name)] if name in also else []
        found = [known[each] for each in matches(name, known)]
        places = {(site.path, site.port, site.name.rpartition(".")[2]) for site in found}
        for each in matches(name, also):
            site = also[each]
            if (site.path, site.port, site.name.rpartition(".")[2]) not in places:
                found.append(replace(site, name=each))
        return found

    def _named_main(self) -> list[Tower]:
        """The towers whose names stand without the prefix that they could have."""
        return [tower for tower in self.stacks.towers if tower.name and not tower.prefix]

    def _from_the_end(self, name: str) -> str:
        """With negative numbers counted from the last block (or stage) that there is."""
        parts = name.split(".")
        for i, part in enumerate(parts):
            if re.fullmatch(r"-\d+", part):
                before = ".".join(parts[:i]) + "."
                known = [*self.structure.sites, *(f"{tower.name}.{n}" for tower in self._named_main() for n in self.structure.sites)]
                numbers = [int(head) for n in known if n.startswith(before) and (head := n[len(before) :].partition(".")[0]).isdigit()]
                if not numbers:
                    return name
                parts[i] = str(max(numbers) + 1 + int(part))
        return ".".join(parts)

    def _token_embedding(self, name: str) -> Site | None:
        for path, module in self._root.named_modules():
            if isinstance(module, nn.Embedding):
                return self.raw(name, path, "out")
        site = self.structure.sites.get("embed")
        return None if site is None else replace(site, name=name)

    def missing(self, pattern: str) -> SiteNotFoundError:
        """The error for a name that stands for nothing, with the reason or the three nearest names."""
        name = self._from_the_end(to_canonical(pattern))
        why = {**self.structure.untold, **self.structure.missing}
        for tower in self._named_main():
            why.update({f"{tower.name}.{n}": reason for n, reason in why.items() if n.startswith("blocks.")})
        reason = why.get(name) or next((why[n] for n in matches(name, why)), None) if is_glob(name) else _reason(name, why)
        if reason:
            return SiteNotFoundError(f"this model has no site {pattern!r}: {reason}. Nearest: {nearest(name, [*self.structure.sites])}")
        bare = name.partition(":")[0].partition("#")[0]
        if bare in self.paths and isinstance(self._root.get_submodule(bare), _LISTS):
            first = next((f"{bare}.{child}" for child, _ in self._root.get_submodule(bare).named_children()), bare)
            return SiteNotFoundError(f"{pattern!r} is a list of modules, which itself never runs; name a member, such as {first!r}")
        if name.partition("#")[0].endswith(":pattern") and (bare in self.paths or bare == WHOLE) and self.record is not None:
            found = pattern_of(self.record, "" if bare == WHOLE else bare, False)
            return SiteNotFoundError(f"no site {pattern!r}: {found if isinstance(found, str) else 'it has no such call'}")
        elsewhere = self._elsewhere(name)
        if elsewhere:
            return SiteNotFoundError(f"this model has no site {pattern!r}: {elsewhere}")
        if self.problem and name.split(".")[-1] in (*CANONICAL_BLOCK, "final_norm", "logits"):
            return SiteNotFoundError(f"site {pattern!r} cannot be located: {self.problem}")
        known = [*self.structure.sites, *self.paths, WHOLE]
        return SiteNotFoundError(f"unknown site {pattern!r}; nearest: {nearest(name, known)}. model.sites() lists all {len(known)}")

    def _elsewhere(self, name: str) -> str:
        """Why a canonical name as of a model with one stack means nothing here."""
        match = re.fullmatch(r"(?:blocks\.[^.]+\.)?(\w+)", name.partition("#")[0])
        if match is None or match[1] not in (*CANONICAL_BLOCK, "embed", "final_norm") or self.record is None:
            return ""
        towers = self.stacks.towers
        if towers and all(tower.prefix for tower in towers):
            return f"it has {len(towers)} stacks and none of them is the main one; say {' or '.join(repr(t.prefix + name) for t in towers)}"
        if towers and towers[0].stack.staged and name.startswith("blocks."):
            told = _reason(f"stages.0.{name}", self.structure.missing) or f"say 'stages.0.{name}'"
            return f"its blocks stand in stages of different width; {told}"
        return "" if towers else f"{self.stacks.why or 'it has no stack of blocks'}; name its parts by their paths"

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
            shape = self.rows(site)
            rows.append(SiteInfo(WHOLE, "(model)", shape, site.kind, "", "what the module returns", canonical=False))
            rows += state_rows(WHOLE, "(model)", self._root, None if shape is None else shape[0])
        for path in self.paths:
            if self.record is not None and self._shape(path, "out") is None:
                continue  # a container, or a part that did not run
            site = self.raw(path, path, "out")
            count = self.record.count.get(path, 1) if self.record is not None else 1
            note = f"runs {count} times: name one as {path}#0" if count > 1 else ""
            if attends(self.record, path):
                note = f"{note}; attention pattern: {path}:pattern" if note else f"attention pattern: {path}:pattern"
            name = f"{path}:out" if path in self.structure.sites else path  # the canonical name wins, so the module needs another
            shape = self.rows(site)
            rows.append(SiteInfo(name, path, shape, site.kind, "", note, canonical=False))
            rows += state_rows(path, path, self._root.get_submodule(path), None if shape is None else shape[0])
        note = f"no shapes: {self.problem}" if self.record is None else f"shapes are for {self.record.example}"
        if self.record is not None and self.problem:
            note += f"; {self.problem}"
        for tower in self._named_main():
            note += f"; blocks.* can also be called {tower.name}.blocks.*"
        return SiteTable(rows, title=title, note=note)

    def rows(self, site: Site) -> tuple[int, ...] | None:
        """Shape of a site's activations for the example, if it was seen."""
        shape = self._shape(site.path, site.port, site.call)
        if shape is None or site.port == "pattern":
            return shape
        empty = Tensor.new_empty(next(iter(self._root.parameters()), Tensor()), shape, device="meta")
        around = self._shape(site.grid, "in") if site.grid is not None else None
        return tuple(site.layout.read(empty if around is None else empty.unflatten(0, around[:2])).shape)


def _reason(name: str, why: Mapping[str, str]) -> str | None:
    """Why a name stands for nothing; a reason may hold for all blocks at once (`blocks.*.q`)."""
    return why.get(name) or next((reason for pattern, reason in why.items() if is_glob(pattern) and matches(pattern, [name])), None)
