"""What measures of dimension and shape add to the neighbor graph that they share, and one estimate against scikit-dimension."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator

import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.models import sites
from inscape.errors import InscapeWarning
from inscape.summaries import Neighbors, Rows

GRAPH = ["two_nn", "two_nn_ml", "gride", "mle_dimension", "mle_dimension_mean", "mle_dimension_curve"]
ROWS = ["local_dimension", "manifold_curvature"]
ESTIMATORS = {"two_nn": "TwoNN", "mle_dimension": "MLE", "lpca_dimension": "lPCA"}


def with_scikit_dimension(setup: Setup) -> None:
    """The same three estimates by scikit-dimension, of the first site; ours of all, so the ratio counts sites."""
    import numpy as np
    import skdim

    first = np.asarray(setup.material["arrays"][0])
    theirs: dict[str, Callable[[], object]] = {
        "two_nn": lambda: skdim.id.TwoNN().fit(first),
        "mle_dimension": lambda: skdim.id.MLE(K=20).fit(first),
        "lpca_dimension": lambda: skdim.id.lPCA().fit(first),
    }
    count = len(setup.material["arrays"])
    setup.subjects = {name: setup.subjects[name] for name in (*ESTIMATORS, "three_in_one_call")}
    for name, run in theirs.items():
        setup.subjects[f"skdim_{name}"] = Subject(run)
        setup.figures[f"{name}_faster"] = Figure(
            f"CPU of {ESTIMATORS[name]} by scikit-dimension over `{name}` alone, its graph or covariance included, a site each",
            lambda t, name=name: count * t[f"skdim_{name}"].cpu / t[name].cpu,
            4.0,
            "higher",
            peer="scikit-dimension",
        )
    setup.figures["three_faster"] = Figure(
        "CPU of TwoNN, MLE and lPCA by scikit-dimension over the three in one call, with their curves over scales, a site each",
        lambda t: count * sum(t[f"skdim_{name}"].cpu for name in ESTIMATORS) / t["three_in_one_call"].cpu,
        4.0,
        "higher",
        peer="scikit-dimension",
    )


@case("dimension_shape", peers={"scikit-dimension": with_scikit_dimension})
def dimension_shape(tiny: bool) -> Generator[Setup]:
    """Dimension and shape of 12 sites [5,000 × 512], one thread: what each measure adds to the graph, and single estimates."""
    arrays = [torch.from_numpy(values) for values in (sites(2, 300, 32) if tiny else sites(12, 5000, 512)).values()]
    store = ix.Store.from_arrays({f"blocks.{index}.resid_post": values.numpy() for index, values in enumerate(arrays)})
    graphs = [Neighbors.of(values, k=32) for values in arrays]

    def quietly(run: Callable[[], object]) -> Callable[[], object]:
        def silent() -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InscapeWarning)
                return run()

        return silent

    def added(name: str) -> Callable[[], object]:
        one = ix.measures.get(name)
        return lambda: [
            one.evaluate(**({"neighbors": graph, "rows": Rows(values)} if name in ROWS else {"neighbors": graph}))
            for graph, values in zip(graphs, arrays, strict=True)
        ]

    subjects = {"graphs": Subject(lambda: [Neighbors.of(values, k=32) for values in arrays])}
    figures: dict[str, Figure] = {}
    for name in [*GRAPH, *ROWS, "ollivier_ricci"]:
        subjects[f"add_{name}"] = Subject(quietly(added(name)))
        figures[f"add_{name}"] = Figure(f"CPU that `{name}` adds to the graph of 32 neighbors", ratio(f"add_{name}", "graphs"), 0.1)
    for name in ESTIMATORS:
        subjects[name] = Subject(lambda name=name: [ix.measures.get(name)(values) for values in arrays])
    subjects["three_in_one_call"] = Subject(quietly(lambda: ix.measure(store, list(ESTIMATORS), interval=None)))
    notes: dict[str, object] = {"sites": len(arrays), "scikit-dimension": "times one site; the ratio is per site"}
    yield Setup(subjects, figures, notes=notes, material={"arrays": arrays})
