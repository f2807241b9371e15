"""Training and encoding of dictionaries: how fast beside peers, and how much memory."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor

import inscape as ix
from benchmarks.case import Figure, Peers, Setup, Subject, case, ratio
from benchmarks.machine import alone, peak_rss, rss
from inscape.dictionaries.schedule import default_rate
from inscape.dictionaries.training import Trainer

STEPS = 3
TEXT = "d = 384, 4,096 features, 32 active, batches of 4,096 rows"


def sizes(tiny: bool) -> dict[str, int]:
    """Rows of a batch, units, features, active features."""
    return {"b": 128, "d": 32, "m": 128, "k": 4} if tiny else {"b": 4096, "d": 384, "m": 4096, "k": 32}


def trainer(b: int, d: int, m: int, k: int, coarse: bool = False) -> Trainer:
    """Clip, counts of silent rows and the auxiliary loss are on, as by default; `coarse` chooses in bfloat16."""
    recipe = ix.dictionaries.TopK(width=m, k=k, coarse=coarse)
    p = recipe.start(d, d, torch.Generator().manual_seed(0))
    return Trainer(recipe, p, 1000, b, default_rate(1000, m, b, recipe.haste), 10_000_000)


def training_memory(b: int, d: int, m: int, k: int) -> dict[str, float]:
    """Bytes at the peak of some steps, beyond tensors and the optimizer's state, in a process of its own."""
    made = trainer(b, d, m, k)
    x = torch.randn(b, d)
    for values in (*made.mean.values(), *made.square.values()):
        values.zero_()  # pages exist only once they are written
    before = rss()
    for _ in range(STEPS):
        made.advance(x, x)
    return {"extra": float(peak_rss() - before)}


def steps(advance: Callable[[Tensor], object], rows: list[Tensor]) -> Callable[[], None]:
    """Some steps on rows that are drawn already."""

    def run() -> None:
        for x in rows:
            advance(x)

    return run


def beside(
    peer: str, advance: Callable[[Setup], Callable[[Tensor], object]], limits: tuple[float, float | None, float]
) -> Callable[[Setup], None]:
    """Adds a peer's steps on the same rows, and how many times as long they take."""

    def add(setup: Setup) -> None:
        step = advance(setup)
        setup.subjects["peer"] = Subject(steps(step, setup.material["rows"]))
        for name, ours, clock, how, limit in (
            ("wall", "inscape", "wall", "fp32", limits[0]),
            ("cpu", "inscape", "cpu", "fp32", limits[1]),
            ("bf16_wall", "coarse", "wall", "chosen in bf16", limits[2]),
        ):
            what = "wall time" if clock == "wall" else "CPU time"
            setup.figures[f"{peer}_{name}"] = Figure(
                f"{peer}: {what} of a training step over inscape's ({TEXT}, {how})", ratio("peer", ours, clock), limit, "higher", peer=peer
            )

    return add


def sparsify(setup: Setup) -> Callable[[Tensor], object]:
    """eai-sparsify with Adam: its fused encoder, unit decoder rows, the gradient along them removed, clipping."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    n = setup.material["sizes"]
    coder = SparseCoder(n["d"], SparseCoderConfig(num_latents=n["m"], k=n["k"]), device="cpu", dtype=torch.float32)
    adam = torch.optim.Adam(coder.parameters(), lr=8e-4)
    silent = torch.zeros(n["m"], dtype=torch.long)

    def step(x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x, dead_mask=silent > 10_000_000)
        (out.fvu + out.auxk_loss / 32).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        fired = torch.zeros(n["m"], dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        silent.add_(len(x)).masked_fill_(fired, 0)

    return step


def dictionary_learning_trainer() -> Any:
    """The package's TopK trainer; it installs beside current packages with `pip install --no-deps` only."""
    # The trainer imports nnsight for what it never uses here; the version that it pins does not install beside current packages.
    for name in ("nnsight", "datasets", "zstandard", "circuitsvis", "umap", "wandb"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["nnsight"].LanguageModel = object  # type: ignore[attr-defined]
    from dictionary_learning.trainers.top_k import TopKTrainer

    return TopKTrainer


def dictionary_learning(setup: Setup) -> Callable[[Tensor], object]:
    """The package's own trainer and its update."""
    n = setup.material["sizes"]
    made = dictionary_learning_trainer()(
        steps=100_000, activation_dim=n["d"], dict_size=n["m"], k=n["k"], layer=0, lm_name="none", seed=0, device="cpu"
    )
    count = iter(range(10**9))
    return lambda x: made.update(next(count), x)


def sae_lens(setup: Setup) -> Callable[[Tensor], object]:
    """SAELens's TopK training class with the step of its trainer: auxiliary loss, counts of silent features, clipping, Adam."""
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    n = setup.material["sizes"]
    coder = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=n["d"], d_sae=n["m"], k=n["k"]))
    adam = torch.optim.Adam(coder.parameters(), lr=8e-4)
    since, total, count = torch.zeros(n["m"]), torch.zeros(n["m"]), iter(range(10**9))

    def step(x: Tensor) -> None:
        coder.train()
        out = coder.training_forward_pass(TrainStepInput(x, {}, since > 1000, next(count), False))
        with torch.no_grad():
            fired = out.feature_acts.bool().float()
            since.add_(1)
            since[fired.sum(-2).bool() if not fired.is_sparse else fired.sum(-2).to_dense().bool()] = 0
            total.add_(fired.sum(0))
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        adam.step()
        adam.zero_grad()

    return step


def overcomplete(setup: Setup) -> Callable[[Tensor], object]:
    """overcomplete's TopK class, its auxiliary loss and the step of its training loop; imported past the vision models it loads first."""
    for name in ("timm", "torchvision", "torchvision.transforms"):
        sys.modules.setdefault(name, types.ModuleType(name))
    package = types.ModuleType("overcomplete")
    spec = importlib.util.find_spec("overcomplete")
    package.__path__ = list(spec.submodule_search_locations or []) if spec else []
    sys.modules["overcomplete"] = package
    from overcomplete.sae.losses import top_k_auxiliary_loss
    from overcomplete.sae.topk_sae import TopKSAE
    from overcomplete.sae.trackers import DeadCodeTracker

    n = setup.material["sizes"]
    coder = TopKSAE(n["d"], n["m"], top_k=n["k"])
    adam = torch.optim.Adam(coder.parameters(), lr=8e-4)
    tracker = DeadCodeTracker(n["m"], "cpu")

    def step(x: Tensor) -> None:
        adam.zero_grad()
        before, z, found = coder(x)
        loss = top_k_auxiliary_loss(x, found, before, z, coder.get_dictionary())
        tracker.update(z)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        adam.step()

    return step


PEERS: Peers = {
    "sparsify": beside("sparsify", sparsify, (2.0, 1.7, 3.0)),
    "dictionary-learning": beside("dictionary-learning", dictionary_learning, (4.5, None, 7.0)),
    "sae-lens": beside("sae-lens", sae_lens, (4.5, None, 7.0)),
    "overcomplete": beside("overcomplete", overcomplete, (4.5, None, 7.0)),
}


@case("dictionary_training", PEERS)
def dictionary_training(tiny: bool) -> Generator[Setup]:
    """Steps of a TopK dictionary, with clipping, counts of silent features and the auxiliary loss on."""
    n = sizes(tiny)
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(n["b"], n["d"], generator=generator) for _ in range(STEPS)]
    made, coarse = trainer(**n), trainer(**n, coarse=True)
    encoder, x = torch.randn(n["m"], n["d"]), rows[0]
    subjects = {
        "inscape": Subject(steps(lambda x: made.advance(x, x), rows)),
        "coarse": Subject(steps(lambda x: coarse.advance(x, x), rows)),
        "encoder": Subject(steps(lambda _: torch.mm(x, encoder.T).topk(n["k"], sorted=False), rows)),
    }
    figures = {
        "over_encoder": Figure(
            f"a training step over one product with the encoder and its top-k ({TEXT}, fp32)", ratio("inscape", "encoder", "wall"), None
        ),
        "bf16": Figure(
            f"a training step in fp32 over one that chooses in bf16 ({TEXT})", ratio("inscape", "coarse", "wall"), None, "higher"
        ),
    }
    extra = alone("benchmarks.cases.dictionaries:training_memory", **n)["extra"] / 1e6
    single = {"memory": ("memory of a training step beside weights and optimizer", extra, 150.0, "MB")}
    can = torch.cpu.get_capabilities()
    notes = {name: bool(can.get(name)) for name in ("avx512_bf16", "amx_bf16")}
    yield Setup(subjects, figures, single, notes=notes, material={"rows": rows, "sizes": n})


@case("matching_pursuit_encode")
def matching_pursuit_encode(tiny: bool) -> Generator[Setup]:
    """Matching pursuit with 32 steps: inner products kept up to date, beside a product with all directions in each step."""
    n, d, m, k = (64, 32, 128, 8) if tiny else (2048, 384, 4096, 32)
    generator = torch.Generator().manual_seed(0)
    recipe = ix.dictionaries.MatchingPursuit(width=m, k=k)
    p = recipe.start(d, d, generator)
    pursuit = ix.dictionaries.Dictionary(recipe, {"W_dec": p["decoder"], "b_dec": p["b_dec"]})
    x, W = torch.randn(n, d, generator=generator), p["decoder"]

    def dense() -> Tensor:
        r, z = x.clone(), torch.zeros(n, m)
        for _ in range(k):
            c, j = (r @ W.T).max(1)
            c = c.clamp(min=0)
            z.scatter_add_(1, j[:, None], c[:, None])
            r -= c[:, None] * W[j]
        return z

    off = float((pursuit.encode(x).torch() - dense()).abs().max())
    subjects = {"inscape": Subject(lambda: pursuit.encode(x)), "dense": Subject(dense)}
    figures = {
        "faster": Figure(
            f"the dense loop over inscape's encoding by matching pursuit (d = {d}, {m:,} directions, {k} steps)",
            ratio("dense", "inscape", "wall"),
            4.0,
            "higher",
        )
    }
    yield Setup(subjects, figures, notes={"largest difference of a code": off})
