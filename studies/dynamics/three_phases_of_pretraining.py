"""The dimensions of a language model's last layer collapse within its first updates, and then come back while it learns contexts."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

import torch
from matplotlib.figure import Figure
from torch import nn

import inscape as ix
from inscape import training

PAPER = 'Li et al., "Tracing the representation geometry of language models from pretraining to post-training", NeurIPS 2025'
CLAIM = (
    "While a language model is trained its representation collapses (RankMe falls, the spectrum becomes steeper), then expands, and at "
    "last is compressed again; skewed frequencies of tokens and far more tokens than units are enough for that."
)
SCALE = (
    "A GPT of two layers and width 24 on 166,000 words, spaces and signs of Python's own source (1,024 kinds, skewed as in language), with "
    "1,024 updates of 512 tokens, in place of OLMo and Pythia of up to 12 billion parameters. As in the paper the last token of each text "
    "is taken, behind the last layer; the power law is fitted to all ranks. A draft at seed 0 was seen before the thresholds were set; of "
    "2,048 updates half were left, for time, after a run of these had failed the same two checks."
)

WIDTH, KINDS, CONTEXT = 24, 1024, 32

CHECKS = {
    "first RankMe collapses by half": lambda v: 0 < v["collapse: factor"] < 0.5,
    "the spectrum is steeper after the collapse": lambda v: v["alpha at the lowest RankMe"] > v["alpha at the start"],
    "then RankMe doubles": lambda v: v["expansion: factor"] > 2,
    "the spectrum is flatter after the expansion": lambda v: v["alpha at the end"] < v["alpha at the lowest RankMe"],
    "at last it is compressed by a tenth": lambda v: 0 < v["compression: factor"] < 0.9,
}
CONTROL_FAILS = "then RankMe doubles"
VERDICT = (
    "Held in part. RankMe collapses to a tenth within the first 50 updates and then expands, unless the words come in a random order "
    "(the control). There is no compression: the expansion slows down but does not turn, nor did it in a draft of four times this "
    "length. The exponent lags behind: it goes on to rise in the first part of the expansion and is still above where that began when "
    "training ends; in the longer draft it came back to its start."
)


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The course of RankMe and of the exponent of the spectrum, and the phases that `phases` finds (0: none)."""
    return _measured(seed, small, order=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same words with the same frequencies in a random order, so that no context says anything."""
    return _measured(seed, small, order=False)


def words(seed: int, order: bool) -> ix.zoo.Corpus:
    """Python's source as numbers of words; the last number stands for all rare ones."""
    corpus = ix.zoo.standard_library(600_000)
    parts = [re.findall(rb"[A-Za-z]+|\d|\s+|[^\sA-Za-z\d]", bytes(part.numpy())) for part in (corpus.train, corpus.held_out)]
    known = {word: number for number, (word, _) in enumerate(Counter(parts[0]).most_common(KINDS - 1))}
    train, held_out = (torch.tensor([known.get(word, KINDS - 1) for word in part]) for part in parts)
    if not order:
        generator = torch.Generator().manual_seed(seed)
        train, held_out = (part[torch.randperm(len(part), generator=generator)] for part in (train, held_out))
    return dataclasses.replace(corpus, train=train, held_out=held_out)


def _measured(seed: int, small: bool, *, order: bool) -> dict[str, float]:
    corpus, steps = words(seed, order), 400 if small else 1024
    texts = corpus.held_out[: 512 * CONTEXT].view(512, CONTEXT).tolist()
    saved = sorted({*ix.zoo.log_steps(steps), *(round(2**power * 1.5) for power in range(3, 11) if 2**power * 1.5 < steps)})
    losses: dict[int, float] = {}

    def checkpoints() -> Iterator[tuple[int, nn.Module]]:
        def make() -> nn.Module:
            return ix.zoo.GPT(KINDS, d=WIDTH, layers=2, heads=2, context=CONTEXT)

        for point in ix.zoo.train(make, corpus, steps=steps, seed=seed, context=CONTEXT, saved=saved):
            losses[point.step] = point.loss
            yield point.step, point.module

    slope = ix.measures.alpha_req.with_options(first=1, last=WIDTH - 1)  # the last norm leaves one direction empty
    course = ix.trajectory(checkpoints(), texts, sites="final_norm", measures=["rankme", slope], interval=None)
    rank, alpha = ({row["at"]: row["value"] for row in course.where(measure=name).rows()} for name in ("rankme", slope.label))
    lowest = min(rank, key=lambda step: rank[step])
    found = {"alpha at the start": alpha[0], "alpha at the lowest RankMe": alpha[lowest], "alpha at the end": alpha[steps]}
    found |= {f"{name}: {part}": 0.0 for name in ("collapse", "expansion", "compression") for part in ("begin", "end", "factor")}
    for phase in reversed(training.phases(course, "rankme")):
        found |= {f"{phase.name}: begin": float(phase.begin), f"{phase.name}: end": float(phase.end), f"{phase.name}: factor": phase.factor}
    for name, values in (("RankMe", rank), ("alpha", alpha), ("loss", losses)):
        found |= {f"{name}, step {step}": value for step, value in values.items()}
    return found


def figure(values: dict[str, float]) -> Figure:
    """RankMe and the exponent over training; bands are the phases."""
    drawing = Figure(figsize=(7.2, 3.1), layout="constrained")
    for ax, name, title in zip(drawing.subplots(1, 2), ("RankMe", "alpha"), ("RankMe", "Exponent of the spectrum"), strict=True):
        points = sorted((int(key.rsplit(" ", 1)[1]), value) for key, value in values.items() if key.startswith(f"{name}, step "))
        ax.plot(*zip(*points, strict=True), color="#0072B2", marker="o", markersize=3)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xticks([step for step in (0, 1, 10, 100, 1000) if step < points[-1][0]], minor=False)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
        for phase, color in (("collapse", "#D55E00"), ("expansion", "#009E73"), ("compression", "#CC79A7")):
            begin, end = values[f"{phase}: begin"], values[f"{phase}: end"]
            if values[f"{phase}: factor"]:
                ax.axvspan(begin, end, color=color, alpha=0.12, lw=0)
                ax.text(max(begin, 1.0) if begin else 0.2, 0.98 * ax.get_ylim()[1], phase, color=color, fontsize=8.5, va="top")
        ax.set_title(title, loc="left")
        ax.set_xlabel("update")
        ax.spines[["top", "right"]].set_visible(False)
    return drawing
