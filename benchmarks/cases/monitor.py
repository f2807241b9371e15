"""What a monitor costs, over the training that it watches."""

from __future__ import annotations

from collections.abc import Generator

import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.models import gpt2, token_ids
from inscape.summaries import Moments

EVERY = 100


def moment_measures() -> list[str]:
    """All measures of one system that are closed forms of its moments."""
    known = {name: ix.measures.get(name) for name in ix.measures.names()}
    return [
        name for name, one in known.items() if one.arity == 1 and {cls for cls, _ in one.needs.values()} == {Moments} and not one.labeled
    ]


@case("monitor_overhead")
def monitor_overhead(tiny: bool) -> Generator[Setup]:
    """A step of AdamW on GPT-2 small (random weights, 8 × 128 tokens) and a probe of 512 token rows at 12 sites by all moment measures."""
    vocabulary = 100 if tiny else 50257
    model = gpt2(layers=2, width=32, heads=2, vocabulary=100) if tiny else gpt2()
    model.train()
    batch = torch.from_numpy(token_ids(8, 128, vocabulary))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    measures = moment_measures()
    mon = ix.Monitor(model, token_ids(4, 128, vocabulary, seed=1), "blocks.*.resid_post", measures, EVERY, tokens="all")

    def step() -> object:
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    figures = {
        "share": Figure(
            f"CPU of a probe every {EVERY} steps over the steps' own: 12 sites, 512 rows, {len(measures)} moment measures, "
            "GPT-2 small 8×128",
            lambda t: ratio("probe", "step")(t) / EVERY,
            None if tiny else 0.02,
        )
    }
    yield Setup({"step": Subject(step), "probe": Subject(mon.probe)}, figures, notes={"measures": measures, "every": EVERY, "rows": 512})
