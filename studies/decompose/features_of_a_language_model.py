"""A sparse autoencoder on a small language model: whether words tell its features, and whether one ability can be taken out with them."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import inscape as ix

PAPER = 'Cunningham, Ewart, Riggs, Huben & Sharkey, "Sparse autoencoders find highly interpretable features in language models", ICLR 2024'
CLAIM = (
    "Features of a sparse autoencoder are more interpretable than principal, independent and random directions or units, and ablating them "
    "takes a prediction out while the model is disturbed less than by ablating principal components."
)
SCALE = (
    "A GPT of 3 layers and 64 units, trained for 768 steps on bytes of Python source; 512 features of the residual stream after its second "
    "block, 8 active. Descriptions count words and are judged without a language model; other directions are read as features that are "
    "active as often. Abilities are to predict one of ten classes of bytes. Directions are ablated in the order of their effect on the "
    "class to first order, the last of them in part, until the class is half as probable where it comes next."
)
VERDICT = (
    "Holds in part. Features take a prediction out with less than a fifth of what principal components disturb, and at two of three seeds "
    "with less than random directions. Words tell features better than principal components, hardly better than independent ones, and "
    "worse than units and random directions: these are active on lists of bytes, which descriptions name, features on fewer (values named "
    "one byte). Those values, the last direction in part and the check that the control must fail were chosen after a look at one seed."
)

SITE, WIDTH, K, CONTEXT = "blocks.1.resid_post", 512, 8, 64
CLASSES = {"line break": "\n", "quotes": "'\"", "digits": "0123456789", "capitals": ascii_uppercase, **{mark: mark for mark in "()_.,:"}}
OTHERS = ("PCA", "ICA", "units", "random")
CHECKS = {
    "features are told better than all other directions": lambda v: v["detection SAE"] > max(v[f"detection {n}"] for n in OTHERS) + 0.02,
    "ablated features disturb less than principal components": lambda v: v["elsewhere SAE"] < 0.8 * v["elsewhere PCA"],
    "and less than random directions": lambda v: v["elsewhere SAE"] < 0.8 * v["elsewhere random"],
    "for most classes": lambda v: v["classes SAE before PCA"] >= 0.75,
    "elsewhere little changes beside what changes there": lambda v: v["elsewhere SAE"] < 0.2 * v["there SAE"],
}
CONTROL_FAILS = "and less than random directions"


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return _values(seed, small, turned=False)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same codes, but what features write is turned by a random rotation: they lie to each other as they did, not to the model."""
    return _values(seed, small, turned=True)


def _values(seed: int, small: bool, *, turned: bool) -> dict[str, float]:
    corpus, steps = ix.zoo.standard_library(), 192 if small else 768
    (made,) = ix.zoo.train(lambda: ix.zoo.GPT(259, layers=3), corpus, steps=steps, lr=5e-3, seed=seed, saved=[steps])
    model = ix.load(made.module.requires_grad_(False), tokenizer=ix.zoo.ByteTokenizer())
    rows = ix.capture(model, replace(corpus, held_out=corpus.train).windows(512 if small else 2048, CONTEXT), SITE, tokens="all")[SITE]
    sae = ix.decompose(rows, ix.dictionaries.TopK(width=WIDTH, k=K), rows=100_000 if small else 300_000, seed=seed)
    turn = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))).Q
    sae = ix.dictionaries.Dictionary(sae.recipe, sae.tensors | ({"W_dec": sae.W_dec @ turn} if turned else {}))
    some = rows.select(rows=range(0, rows.n, 8))  # 64 directions need no more
    linear = {kind.__name__: ix.decompose(some, kind(width=64), seed=seed) for kind in (ix.dictionaries.PCA, ix.dictionaries.ICA)}
    for name, basis in (("units", torch.eye(64)), ("random", turn)):
        linear[name] = ix.dictionaries.Dictionary(linear["PCA"].recipe, linear["PCA"].tensors | {"W_enc": basis.T, "W_dec": basis})
    held = ix.capture(model, corpus.windows(128 if small else 384, CONTEXT), sites=SITE, tokens="all")[SITE]
    values = {"loss": made.loss, "fvu": sae.score(held, interval=None).value(measure="fvu")}
    for name, one in {"SAE": sae, **{name: _as_features(one, rows.torch()) for name, one in linear.items()}}.items():
        values[f"detection {name}"] = ix.dictionaries.interpretability(one.features(held, seed=seed), seed=seed).value(measure="detection")
        codes, ids = one.encode(held), torch.as_tensor(held.column("token_id").astype(np.int64))
        table = torch.zeros(one.m, 259).index_put_((codes.indices, ids[codes.rows]), codes.values, accumulate=True)
        values[f"one byte {name}"] = float((table.amax(1) / table.sum(1))[table.sum(1) > 0].mean())
    return values | _ablated(model, corpus, {"SAE": sae, "PCA": linear["PCA"], "random": linear["random"]}, small)


def _as_features(linear: Any, rows: Tensor) -> Any:
    """Both sides of each direction, active in as large a share of the rows as the autoencoder's features are on average."""
    W = linear.W_enc / ((rows - linear.b_dec) @ linear.W_enc).std(0)
    W = torch.cat([W, -W], 1)
    drawn = ((rows[::4] - linear.b_dec) @ W).sort(0).values
    tensors = {"W_enc": W, "W_dec": W.T, "b_enc": torch.zeros(128), "b_dec": linear.b_dec}
    tensors["threshold"] = drawn[int(len(drawn) * (1 - K / WIDTH))]
    return ix.dictionaries.Dictionary(ix.dictionaries.JumpReLU(width=128, l0=2), tensors)


def _ablated(model: Any, corpus: Any, kinds: dict[str, Any], small: bool) -> dict[str, float]:
    """Divergence where a class comes next and elsewhere, and how many directions it took, once the class is half as probable."""
    count, classes = (40, dict(list(CLASSES.items())[::3])) if small else (64, CLASSES)
    windows = torch.tensor([list(text.encode()) for text in corpus.windows(2 * count, CONTEXT + 1)])
    chosen, tested = windows.unflatten(0, (-1, 2)).unbind(1)  # directions are ranked on the one half, ablated on the other
    held, states = (ix.capture(model, part[:, :-1], sites=SITE, tokens="all")[SITE].torch() for part in (chosen, tested))
    codes = {name: (kind.encode(held).torch(), kind.encode(states).torch()) for name, kind in kinds.items()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    for text in classes.values():
        members = torch.tensor(list(text.encode()))
        moving = held.view(count, CONTEXT, -1).clone().requires_grad_()
        with ix.edit(model, SITE, ix.edits.patch(moving)):
            logs = model.module(chosen[:, :-1]).log_softmax(-1)
        logs[..., members].logsumexp(-1)[torch.isin(chosen[:, 1:], members)].sum().backward()
        for name, kind in kinds.items():
            order = (codes[name][0] * (moving.grad.flatten(0, 1) @ kind.W_dec.T)).sum(0).argsort(descending=True)
            found[name].append(_halved(model, tested, states, members, (codes[name][1][:, order], kind.W_dec[order])))
    tables = {name: np.array(rows) for name, rows in found.items()}
    values = {"classes SAE before PCA": float((tables["SAE"][:, 1] < tables["PCA"][:, 1]).mean())}
    for name, table in tables.items():
        values |= {f"{what} {name}": float(np.exp(np.log(table[:, at]).mean())) for at, what in ((1, "elsewhere"), (2, "there"))}
        values |= {f"directions {name}": float(np.median(table[:, 3])), f"halved {name}": float((table[:, 0] > 0.49).mean())}
        values |= {f"{name}: {label}": float(row[1]) for label, row in zip(classes, table, strict=True)}
    return values


def _halved(model: Any, windows: Tensor, states: Tensor, members: Tensor, written: tuple[Tensor, Tensor]) -> np.ndarray:
    """Share of the class's probability lost, divergence elsewhere and there, and number of directions (the last in part), at half of it."""
    plain, there = model.module(windows[:, :-1]).log_softmax(-1), torch.isin(windows[:, 1:], members)

    def without(some: float) -> np.ndarray:
        weights = (some - torch.arange(np.ceil(some))).clamp(max=1)
        left = states - (written[0][:, : len(weights)] * weights) @ written[1][: len(weights)]
        with ix.edit(model, SITE, ix.edits.patch(left.view(*there.shape, -1))):
            edited = model.module(windows[:, :-1]).log_softmax(-1)
        apart = (plain.exp() * (plain - edited)).sum(-1)
        before, after = (logs[..., members].exp().sum(-1)[there].mean() for logs in (plain, edited))
        return np.array([1 - after / before, apart[~there].mean(), apart[there].mean(), some])

    low, high, most = 0.0, 1.0, float(len(written[1]))
    while (now := without(high))[0] < 0.5 and high < most:
        low, high = high, min(most, np.ceil(1.4 * high))
    for _ in range(5):
        trial = without((low + high) / 2)
        low, high, now = (low, trial[3], trial) if trial[0] >= 0.5 else (trial[3], high, now)
    return now


def figure(values: dict[str, float]) -> Figure:
    """How well each kind is told, and the divergence elsewhere for each class."""
    drawn = Figure(figsize=(10.4, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(1, 2.3))
    bars = left.bar(("SAE", *OTHERS), [values[f"detection {name}"] for name in ("SAE", *OTHERS)], color=["#0072B2", *["#a9a8a2"] * 4])
    left.bar_label(bars, fmt="%.2f", fontsize=8.5, padding=2)
    left.set(ylim=(0, 1), ylabel="detection by words")
    labels = [name.removeprefix("SAE: ") for name in values if name.startswith("SAE: ")]
    for name, color, mark in (("SAE", "#0072B2", "o"), ("PCA", "#D55E00", "s"), ("random", "#6f6e69", "x")):
        right.semilogy(labels, [values[f"{name}: {label}"] for label in labels], mark, ms=5, color=color, label=name)
    right.set(ylabel="divergence elsewhere, nats", xlabel="class of bytes that is half as probable")
    right.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
