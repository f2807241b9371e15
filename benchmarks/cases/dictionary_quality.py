"""How well known features come back from dictionaries with no other options, and from those of peers on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor

import inscape as ix
from benchmarks.case import Peers, Setup, case
from benchmarks.cases.dictionaries import dictionary_learning_trainer

BATCH = 1024  # what decompose takes for these rows
TUNING = 10  # the seed on which a peer's rate is chosen; none of those that are reported


def rows_of(features: Tensor, n: int, active: int, seed: int) -> Tensor:
    """Rows with `active` features each, coefficients uniform in 0.2 to 1.2."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(n, len(features), generator=generator).topk(active, 1).indices
    strength = torch.rand(n, active, generator=generator) + 0.2
    return torch.nn.functional.embedding_bag(chosen, features, per_sample_weights=strength, mode="sum")


def drawn(d: int, features: int, active: int, rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """True directions, rows to train on, and other rows to score on; from seeds of their own."""
    true = torch.randn(features, d, generator=torch.Generator().manual_seed(10_000 + seed))
    true = true / true.norm(dim=1, keepdim=True)
    return true, rows_of(true, rows, active, 20_000 + seed), rows_of(true, min(rows, 20_000), active, 30_000 + seed)


# kind → how it is made for a width and about how many features of a row.
KINDS: dict[str, Callable[[int, int], Any]] = {
    "TopK": lambda m, k: ix.dictionaries.TopK(width=m, k=k),
    "BatchTopK": lambda m, k: ix.dictionaries.BatchTopK(width=m, k=k),
    "JumpReLU": lambda m, k: ix.dictionaries.JumpReLU(width=m, l0=k),
    "ReLU": lambda m, k: ix.dictionaries.ReLU(width=m),
    "Gated": lambda m, k: ix.dictionaries.Gated(width=m),
    "Matryoshka": lambda m, k: ix.dictionaries.Matryoshka(width=m, k=k),
    "Matryoshka of two": lambda m, k: ix.dictionaries.Matryoshka(width=m, k=k, prefixes=(m // 2, m)),
    "MatchingPursuit": lambda m, k: ix.dictionaries.MatchingPursuit(width=m, k=k),
    "TopK in bfloat16": lambda m, k: ix.dictionaries.TopK(width=m, k=k, coarse=True),
}


def quality(kind: str, *, d: int, features: int, active: int, width: int, k: int, rows: int, seed: int) -> dict[str, float]:
    """One training with no other options: recovery of the features, and variance lost on rows that were not trained on."""
    true, train, test = drawn(d, features, active, rows, seed)
    sae = ix.decompose(train, KINDS[kind](width, k), rows=rows, seed=seed)
    found = ix.dictionaries.recovery(sae, true)
    scored = sae.score(test, interval=None)
    told = {name: found.value(measure=name) for name in ("mmcs", "recovered")}
    return told | {name: scored.value(measure=name) for name in ("fvu", "l0")}


Fit = Callable[[dict[str, int], Tensor, float | None, int], tuple[Tensor, Callable[[Tensor], Tensor]]]


def sparsify(task: dict[str, int], rows: Tensor, rate: float | None, seed: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """eai-sparsify: the optimizer of its trainer (signs, schedule-free), or Adam with a short rise and a linear fall."""
    from schedulefree import ScheduleFreeWrapper
    from sparsify.config import SparseCoderConfig
    from sparsify.sign_sgd import SignSGD
    from sparsify.sparse_coder import SparseCoder
    from transformers import get_linear_schedule_with_warmup

    torch.manual_seed(seed)
    coder = SparseCoder(task["d"], SparseCoderConfig(num_latents=task["width"], k=task["k"]), device="cpu", dtype=torch.float32)
    coder.b_dec.data = rows[:BATCH].mean(0)
    steps, schedule = len(rows) // BATCH, None
    if rate is None:
        optimizer = ScheduleFreeWrapper(SignSGD(coder.parameters(), lr=5e-3 / (task["width"] / 2**14) ** 0.5), momentum=0.95)
        optimizer.train()
    else:
        optimizer = torch.optim.Adam(coder.parameters(), lr=rate)
        schedule = get_linear_schedule_with_warmup(optimizer, steps // 30, steps)
    for x in rows.split(BATCH)[:steps]:
        coder.set_decoder_norm_to_unit_norm()
        coder(x, dead_mask=None).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        if schedule is not None:
            schedule.step()
    if rate is None:
        optimizer.eval()
    return coder.W_dec.detach(), lambda x: coder(x).sae_out


def dictionary_learning(task: dict[str, int], rows: Tensor, rate: float | None, seed: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The package's TopK trainer; its rise of 1,000 steps would not end, so it takes a thirtieth of the steps."""
    steps = len(rows) // BATCH
    options: dict[str, Any] = {} if rate is None else {"lr": rate, "decay_start": int(0.6 * steps)}
    made = dictionary_learning_trainer()(
        steps=steps,
        activation_dim=task["d"],
        dict_size=task["width"],
        k=task["k"],
        layer=0,
        lm_name="none",
        seed=seed,
        device="cpu",
        warmup_steps=steps // 30,
        **options,
    )
    for step, x in enumerate(rows.split(BATCH)[:steps]):
        made.update(step, x)
    return made.ae.decoder.weight.detach().T, made.ae


def sae_lens(task: dict[str, int], rows: Tensor, rate: float | None, seed: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """SAELens's TopK training class with the step of its trainer; Adam at the runner's rate, or with a rise and a linear fall."""
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    torch.manual_seed(seed)
    coder, steps = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=task["d"], d_sae=task["width"], k=task["k"])), len(rows) // BATCH
    adam, since = torch.optim.Adam(coder.parameters(), lr=rate or 3e-4), torch.zeros(task["width"])
    for step, x in enumerate(rows.split(BATCH)[:steps]):
        if rate is not None:
            done = (step + 0.5) / steps
            adam.param_groups[0]["lr"] = rate * min(1.0, done / 0.03, (1 - done) / 0.4)
        out = coder.training_forward_pass(TrainStepInput(x, {}, since > 1000, step, False))
        since = (since + 1).masked_fill(out.feature_acts.detach().bool().any(0), 0)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
    return coder.W_dec.detach(), coder.eval()


def told_of(fit: Fit, task: dict[str, int], rate: float | None, seed: int) -> dict[str, float]:
    """A peer's training on the rows of a seed: mean largest cosine, and variance lost on other rows."""
    true, train, test = drawn(task["d"], task["features"], task["active"], task["rows"], seed)
    W, rebuilt = fit(task, train, rate, seed)
    with torch.no_grad():
        left = rebuilt(test) - test
    cosines = (true @ (W / W.norm(dim=1, keepdim=True)).T).max(1).values
    fvu = left.square().sum() / (test - test.mean(0)).square().sum()
    return {"mmcs": float(cosines.mean()), "recovered": float((cosines >= 0.9).float().mean()), "fvu": float(fvu)}


def beside(peer: str, fit: Fit) -> Callable[[Setup], None]:
    """Adds a peer at its defaults and at the best of some rates, and whether either is ahead of TopK with no other options."""

    def add(setup: Setup) -> None:
        task, seeds, rates = setup.material["task"], setup.material["seeds"][:3], setup.material["rates"]
        tried = {rate: told_of(fit, task, rate, TUNING) for rate in rates}
        best = max(rates, key=lambda rate: tried[rate]["mmcs"])
        found = {
            "defaults": [told_of(fit, task, None, seed) for seed in seeds],
            "tuned": [told_of(fit, task, best, seed) for seed in seeds],
        }
        ours = [quality("TopK", **task, seed=seed) for seed in seeds]
        setup.notes |= {"rate": best, "rates tried": {str(rate): one for rate, one in tried.items()}, **found, "inscape": ours}

        def mean(name: str, rows: list[dict[str, float]]) -> float:
            return sum(one[name] for one in rows) / len(rows)

        for how, rows in found.items():
            text = f"{peer}, {'at its defaults' if how == 'defaults' else f'at the best of {len(rates)} rates'}"
            ahead = mean("mmcs", rows) - mean("mmcs", ours)
            setup.single[f"{peer}_{how}_mmcs"] = (f"{text}: its mean largest cosine less that of TopK, {len(seeds)} seeds", ahead, 0.0, "")
            less = mean("fvu", ours) - mean("fvu", rows)
            setup.single[f"{peer}_{how}_fvu"] = (f"{text}: variance lost by TopK less that lost by it, {len(seeds)} seeds", less, 0.0, "")

    return add


PEERS: Peers = {
    "sparsify": beside("sparsify", sparsify),
    "dictionary-learning": beside("dictionary-learning", dictionary_learning),
    "sae-lens": beside("sae-lens", sae_lens),
}


@case("dictionary_quality", PEERS)
def dictionary_quality(tiny: bool) -> Generator[Setup]:
    """Whether dictionaries with no other options find 512 known features in 300 steps."""
    task = {"d": 16, "features": 24, "active": 3, "width": 64, "k": 4, "rows": 8192} if tiny else {}
    task = task or {"d": 128, "features": 512, "active": 8, "width": 1024, "k": 16, "rows": 307_200}
    seeds = list(range(1 if tiny else 5))

    def ours(setup: Setup) -> None:
        found = {kind: [quality(kind, **task, seed=seed) for seed in seeds] for kind in KINDS}
        top, coarse = found["TopK"], found["TopK in bfloat16"]
        least, most = min(one["mmcs"] for one in top), max(one["fvu"] for one in top)
        setup.single["mmcs"] = ("TopK, worst of 5 seeds: 1 − mean largest cosine of 512 known features", 1 - least, 0.02, "")
        setup.single["fvu"] = ("TopK, worst of 5 seeds: share of variance lost on new rows", most, 0.12, "")
        change = max(abs(b["fvu"] - a["fvu"]) / a["fvu"] for a, b in zip(top, coarse, strict=True))
        setup.notes |= {"kinds": found, "task": task, "largest relative change of FVU by choosing in bfloat16, a seed": change}

    yield Setup({}, {}, own=ours, material={"task": task, "seeds": seeds, "rates": [4e-3] if tiny else [1e-3, 2e-3, 4e-3, 8e-3]})
