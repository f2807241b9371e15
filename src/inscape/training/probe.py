"""One look at a model in training: the same stimuli, sites and measures every time, and nothing else of the model touched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from inscape.capturing import Stimuli
from inscape.capturing.session import Session, Settings
from inscape.errors import UnknownMeasureError
from inscape.measures.definition import Measure
from inscape.measures.inputs import as_views
from inscape.measures.one_system import Row, bind, evaluate_site, measure_sites, plan_sites
from inscape.measures.uncertainty import Uncertainty
from inscape.models import Model, load
from inscape.store import Store
from inscape.store.writer import StoreWriter
from inscape.summaries import Moments
from inscape.summaries.site import Held, Key
from inscape.summaries.sums import PowerSums
from inscape.training.ranks import Ranks
from inscape.training.unchanged import unchanged


class Probe:
    """Captures and measures a model again and again; what can be found out once is found out when it is made.

    Args:
        model: the network in training, or a loaded `Model`.
        stimuli: what `ix.capture` takes.
        sites: names or globs.
        measures: of one system.
        tokens: which positions give rows, as for `ix.capture`.
        labels: for measures of classes, as for `ix.measure`.
        weights: the layers that measures read beside the rows; default the model's last linear layer.
        loading: keywords for `ix.load`.
        ranks: the processes that train the model together. Where all measures are of moments, each runs its share of the stimuli and the
            sums are added; else the first runs all of them.

    Raises:
        UnknownMeasureError: a measure of parameters.
    """

    def __init__(
        self,
        model: nn.Module | Model,
        stimuli: Any,
        sites: str | Sequence[str],
        measures: Sequence[Measure],
        *,
        tokens: Any = None,
        labels: Any = None,
        weights: Any = None,
        loading: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if wrong := [one.label for one in measures if one.of_weights]:
            raise UnknownMeasureError(f"{', '.join(wrong)}: of parameters, not of activations; call ix.measure on the model for these")
        self.measures = list(measures)
        self.labels = labels
        self.ranks = ranks or Ranks()
        self._asked = Stimuli.of(stimuli), sites, tokens
        module = model.module if isinstance(model, Model) else model
        with unchanged(module):
            self.model = model if isinstance(model, Model) else load(model, **(loading or {}))
        self.share()
        self.weights = self.model if weights is None else weights

    def share(self) -> None:
        """Divides the stimuli among the processes that there are now."""
        given, sites, tokens = self._asked
        self.shared = self.ranks.count > 1 and all(cls is Moments for one in self.measures for cls, _ in one.needs.values())
        share = math.ceil(len(given) / self.ranks.count) if self.shared else None
        with unchanged(self.model.module):
            self._session = Session(self.model, given, sites, Settings(tokens=tokens, shard_stimuli=share))
            self._plan = self._session.plan()
        self._session._unsound.told.update(self._session.specs)  # rows that are not finite are an alarm here, not a warning

    @property
    def sites(self) -> list[str]:
        """The sites that the patterns stand for."""
        return list(self._session.specs)

    def look(self) -> list[Row]:
        """One row per site and measure, the same in all processes; a measure that is undefined has a reason.

        Each row says in `broken` whether the rows of its site hold NaN or infinity.
        """
        if self.shared:
            found, broken = self._add_up()
        elif self.ranks.first:
            store, broken = self.rows()
            found = self.measure(store)
        else:
            found, broken = list[Row](), set[str]()
        found = [{**row, "broken": row["site"] in broken} for row in found]
        return self.ranks.from_first([{name: row.get(name) for name in _KEPT} for row in found])

    def rows(self) -> tuple[Store, set[str]]:
        """What the sites hold now, and the sites with rows that are not finite."""
        session = self._placed()
        broken: set[str] = set()
        with (
            unchanged(self.model.module),
            StoreWriter.create_or_resume(None, self._plan, session.stimuli.table, session.specs, units=session.units) as writer,
            closing(session.run()) as shards,
        ):
            for shard in shards:
                broken |= {site for site, X in shard.values.items() if not bool(torch.isfinite(X).all())}
                writer.write_shard(shard.index, shard.rows, shard.values, shard.notes)
            return writer.finish(), broken

    def measure(self, store: Store) -> list[Row]:
        """The headline of each measure at each site of a store."""
        views = as_views(store)
        uncertainty = Uncertainty(None, 0.95, None, 1)
        plan = plan_sites(views, self.measures, uncertainty, 2**32)
        found, _ = measure_sites(views, self.measures, plan, labels=self.labels, groups=None, uncertainty=uncertainty, weights=self.weights)
        return [row for row in found if row.get("at") is None]

    def _placed(self) -> Session:
        """The session, where the model is now: trainers move it after the monitor was made."""
        self._session._device, self._session._dtype = self.model.device, self.model.dtype
        return self._session

    def _add_up(self) -> tuple[list[Row], set[str]]:
        """Moments of this process's share of the stimuli, added over all processes; the first evaluates them. And the broken sites."""
        session = self._placed()
        mine = range(self.ranks.rank, min(self.ranks.rank + 1, self._session.shard_count))
        with unchanged(self.model.module), closing(session.run(mine)) as shards:
            values = {name: x for shard in shards for name, x in shard.values.items()}
        needed, bound = bind(self.measures)
        found: list[Row] = []
        unsound: set[str] = set()
        for site, spec in session.specs.items():
            X = values.get(site, torch.zeros(0, spec.d)).cpu().double()
            finite = bool(torch.isfinite(X).all())
            moments, broken = self._moments(X if finite else X[:0], not finite)
            base: Row = {"system": self.model.name, "site": site, "kind": spec.kind, "n": int(moments.n), "d": spec.d}
            if broken:
                unsound.add(site)
                found += [
                    {**base, "measure": one.label, "status": "failed", "reason": "rows hold NaN or infinity"} for one in self.measures
                ]
            elif self.ranks.first:
                rows, _ = evaluate_site(_Whole(dict.fromkeys(needed, moments)), self.measures, bound, base, self.labels, None)
                found += [row for row in rows if row.get("at") is None]
        return found, unsound

    def _moments(self, X: Tensor, broken: bool) -> tuple[Moments, bool]:
        """The moments of the rows of all processes, and whether any of them saw rows that are no numbers."""
        shift = torch.tensor(self.ranks.from_first(X.mean(0).tolist() if len(X) else [0.0] * X.shape[1]), dtype=torch.float64)
        own = Moments(shift=shift, precise=True)
        if len(X):
            s = own.update(X).sums
            assert s.second is not None
            sums = [s.first, s.second, s.square, s.fourth, s.third]
        else:
            d = X.shape[1]
            sums = [torch.zeros(shape, dtype=torch.float64) for shape in ((d,), (d, d), (), (), (d,))]
        n, bad, *parts = self.ranks.add(torch.tensor(float(len(X))), torch.tensor(float(broken)), *sums)
        whole = Moments(shift=shift, precise=True)._with(PowerSums(float(n), *parts), int(n))
        return whole, bool(bad)


class _Whole:
    """Summaries of all rows; there are no groups to leave out."""

    def __init__(self, full: dict[Key, Held]) -> None:
        self.full = full

    def without(self, group: int) -> Mapping[Key, Held]:
        return self.full


_KEPT = ("site", "measure", "value", "n", "d", "reason", "broken")
