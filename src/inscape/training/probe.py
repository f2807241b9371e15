"""One look at a model in training: the same stimuli, sites and measures every time, and nothing else of the model touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from torch import nn

from inscape.capturing import Stimuli
from inscape.capturing.session import Session, Settings
from inscape.errors import UnknownMeasureError
from inscape.measures.definition import Measure
from inscape.measures.inputs import as_views
from inscape.measures.one_system import Row, measure_sites, plan_sites
from inscape.measures.uncertainty import Uncertainty
from inscape.models import Model, load
from inscape.store import Store
from inscape.store.writer import StoreWriter
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
    ) -> None:
        if wrong := [one.label for one in measures if one.of_weights]:
            raise UnknownMeasureError(f"{', '.join(wrong)}: of parameters, not of activations; call ix.measure on the model for these")
        self.measures = list(measures)
        self.labels = labels
        module = model.module if isinstance(model, Model) else model
        with unchanged(module):
            self.model = model if isinstance(model, Model) else load(model, **(loading or {}))
            self._session = Session(self.model, Stimuli.of(stimuli), sites, Settings(tokens=tokens))
            self._plan = self._session.plan()
        self._session._unsound.told.update(self._session.specs)  # rows that are not finite are an alarm here, not a warning
        self.weights = self.model if weights is None else weights

    @property
    def sites(self) -> list[str]:
        """The sites that the patterns stand for."""
        return list(self._session.specs)

    def rows(self) -> Store:
        """What the sites hold now."""
        session = self._session
        with (
            unchanged(self.model.module),
            StoreWriter.create_or_resume(None, self._plan, session.stimuli.table, session.specs, units=session.units) as writer,
            closing(session.run()) as shards,
        ):
            for shard in shards:
                writer.write_shard(shard.index, shard.rows, shard.values, shard.notes)
            return writer.finish()

    def measure(self, store: Store) -> list[Row]:
        """One row per site and measure; a measure that is undefined has a status and a reason."""
        views = as_views(store)
        uncertainty = Uncertainty(None, 0.95, None, 1)
        plan = plan_sites(views, self.measures, uncertainty, 2**32)
        found, _ = measure_sites(views, self.measures, plan, labels=self.labels, groups=None, uncertainty=uncertainty, weights=self.weights)
        return [row for row in found if row.get("at") is None]
