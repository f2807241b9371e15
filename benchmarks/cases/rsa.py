"""RSA inference: its time beside rsatoolbox, whether its intervals cover, and the memory of unbalanced crossnobis distances."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.machine import alone, peak_rss, rss
from inscape.rsa import RDMs

LIMITS = {"rsa_cosine": 0.3, "rsa_corr": 0.3, "rsa_cosine_whitened": 2.0, "rsa_corr_whitened": 2.0, "rsa_spearman": 3.0, "rsa_rho_a": 3.0}


def family(stimuli: int, subjects: int, models: int) -> tuple[RDMs, RDMs]:
    """Squared distances of subjects and of models that are more and more unlike them."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((stimuli, 20))
    data = {f"s{i}": base + rng.standard_normal(base.shape) for i in range(subjects)}
    named = {f"m{i}": base + (i + 0.5) * rng.standard_normal(base.shape) for i in range(models)}
    return ix.rdm(named, "squared_euclidean"), ix.rdm(data, "squared_euclidean")


def run(models: RDMs, data: RDMs, measure: str, draws: int) -> Callable[[], object]:
    """All of an analysis: values, ceilings, dual bootstrap, intervals and tests."""
    return lambda: ix.compare(models, data, measure, ceiling=True, draws=draws)


def beside_rsatoolbox(setup: Setup) -> None:
    from rsatoolbox.inference import eval_bootstrap
    from rsatoolbox.model import ModelFixed
    from rsatoolbox.rdm import RDMs as Theirs

    models, data, draws = (setup.material[name] for name in ("models", "data", "peer_draws"))
    theirs, fixed = Theirs(data.values), [ModelFixed(name, one) for name, one in zip(models.names, models.values, strict=True)]

    def bootstrap() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval_bootstrap(fixed, theirs, method="corr", N=draws)

    setup.subjects = {"rsatoolbox_corr": Subject(bootstrap), "inscape_corr": Subject(run(models, data, "rsa_corr", draws))}
    setup.figures = {
        "times_rsatoolbox": Figure(
            f"rsatoolbox's eval_bootstrap (one bootstrap) over the dual bootstrap with tests here, correlation, {draws} draws each",
            ratio("rsatoolbox_corr", "inscape_corr"),
            50.0,
            "higher",
            peer="rsatoolbox",
        )
    }


def crossnobis(conditions: int, runs: int, channels: int) -> dict[str, float]:
    """Time and memory above the data of crossnobis distances where one row in twenty is missing."""
    rng = np.random.default_rng(0)
    kept = rng.random(conditions * runs) > 0.05
    rows = rng.standard_normal((int(kept.sum()), channels))
    by, folds = np.tile(np.arange(conditions), runs)[kept], np.repeat(np.arange(runs), conditions)[kept]
    ix.rdm(rows[:30, :20], "crossnobis", by=np.arange(30) % 10, folds=np.arange(30) // 10)  # loads what there is to load
    before, start = rss(), time.process_time()
    ix.rdm(rows, "crossnobis", by=by, folds=folds)
    return {"above": peak_rss() - before, "cpu": time.process_time() - start}


@case("rsa_inference", peers={"rsatoolbox": beside_rsatoolbox})
def rsa_inference(tiny: bool) -> Generator[Setup]:
    """RSA of 92 stimuli, 12 subjects and 4 models: 1,000 dual bootstrap draws with noise ceilings, intervals and tests."""
    stimuli, subjects, draws = (12, 4, 30) if tiny else (92, 12, 1000)
    models, data = family(stimuli, subjects, 4)
    timed = {name: Subject(run(models, data, name, draws)) for name in LIMITS}
    figures = {
        name: Figure(f"CPU seconds of {draws:,} draws by {name}", lambda times, name=name: times[name].cpu, limit, unit="s")
        for name, limit in LIMITS.items()
    }
    material = {"models": models, "data": data, "peer_draws": 30 if tiny else 500}
    yield Setup(timed, figures, notes={"stimuli": stimuli, "subjects": subjects, "draws": draws}, material=material)


@case("rsa_tau")
def rsa_tau(tiny: bool) -> Generator[Setup]:
    """The same with Kendall's tau-a, which counts pairs of pairs; once."""
    stimuli, subjects, draws = (12, 4, 30) if tiny else (92, 12, 1000)
    models, data = family(stimuli, subjects, 4)
    start = time.process_time()
    run(models, data, "rsa_tau_a", draws)()
    seconds = time.process_time() - start
    single = {"rsa_tau_a": (f"CPU seconds of {draws:,} draws by rsa_tau_a", seconds, 60.0, "s")}
    yield Setup({}, {}, single, notes={"stimuli": stimuli, "subjects": subjects, "draws": draws})


@case("rsa_crossnobis")
def rsa_crossnobis(tiny: bool) -> Generator[Setup]:
    """Unbalanced crossnobis distances of 100 conditions in 20 runs of 5,000 channels."""
    size = {"conditions": 10, "runs": 4, "channels": 50} if tiny else {"conditions": 100, "runs": 20, "channels": 5000}
    seen = alone("benchmarks.cases.rsa:crossnobis", **size)
    square = 8 * size["channels"] ** 2
    text = "peak memory above the data, over that of a matrix of channels × channels"
    yield Setup({}, {}, {"memory": (text, seen["above"] / square, 1.0, "×")}, notes={**size, **seen})


def simulated(seed: int, stimuli: int, subjects: int) -> tuple[RDMs, RDMs]:
    """Stimuli drawn anew, subjects drawn anew, a model that is the truth of the average subject and one that is near it."""
    rng = np.random.default_rng([7, stimuli, seed])
    features = rng.standard_normal((stimuli, 12))
    data: dict[str, Any] = {}
    for one in range(subjects):
        weights = np.eye(12) + 0.4 * rng.standard_normal((12, 12))
        data[f"s{one}"] = features @ weights + rng.standard_normal((stimuli, 12))
    rival = features * np.where(np.arange(12) < 9, 1.0, 0.0)
    return ix.rdm({"true": features, "rival": rival}, "squared_euclidean"), ix.rdm(data, "squared_euclidean")


@case("rsa_coverage")
def rsa_coverage(tiny: bool) -> Generator[Setup]:
    """Coverage of 95 % intervals over 1,000 simulations in which stimuli and subjects are drawn anew (cosine, 12 subjects)."""
    trials, draws = (10, 30) if tiny else (1000, 200)
    single: dict[str, tuple[str, float, float, str]] = {}
    table: dict[str, dict[str, float]] = {}
    for stimuli in (12, 30, 92):
        rows: list[tuple[float, float, float]] = []
        beaten = 0
        for seed in range(trials):
            models, data = simulated(seed, stimuli, 12)
            result = ix.compare(models, data, "rsa_cosine", draws=draws, correction=None, seed=seed)
            head = result.where(system="true", axis=None).rows()[0]
            rows.append((head["value"], head["low"], head["high"]))
            difference = result.where(axis="difference").rows()[0]
            beaten += difference["value"] < 0 and difference["p"] < 0.05
        values = np.array(rows)
        mean = values[:, 0].mean()
        covered = float(((values[:, 1] <= mean) & (mean <= values[:, 2])).mean())
        width = float((values[:, 2] - values[:, 1]).mean())
        table[str(stimuli)] = {
            "coverage": covered,
            "mean": float(mean),
            "sd": float(values[:, 0].std()),
            "width": width,
            "beaten": beaten / trials,
        }
        single[f"coverage_{stimuli}"] = (
            f"distance of the coverage ({covered:.1%}) from 95 %, {stimuli} stimuli",
            abs(100 * covered - 95),
            3.0,
            "points",
        )
        single[f"beaten_{stimuli}"] = (f"true model reliably worse than its rival, {stimuli} stimuli", 100 * beaten / trials, 5.0, "%")
    yield Setup({}, {}, single, notes={"trials": trials, "draws": draws, "table": table})
