"""Models that put time before the stimuli inside, and models whose head runs on less than the rest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import SiteNotFoundError
from tests.families.catalog import families, model_of
from tests.unit.models.conftest import seeded

IDS = [[4, 5], [6, 7], [8, 9], [10, 11]]  # as many tokens as a batch of two has stimuli: nothing but the axes' order tells them apart


class Block(nn.Module):
    """Mixes over time, the first axis, and adds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x.cumsum(0))


class TimeFirst(nn.Module):
    """Reads token ids [b, t] and computes on [t, b, d]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(44, 8)
        self.layers = nn.ModuleList([Block() for _ in range(2)])

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.table(input_ids).transpose(0, 1)
        for layer in self.layers:
            x = layer(x)
        return x.transpose(0, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_rows_keep_their_text_whatever_the_batch(size: int) -> None:
    module = seeded(TimeFirst)
    store = ix.capture(module, IDS, ["layers.0.inner", "layers.1"], "all", batch_size=size, progress=False)
    with torch.no_grad():
        assert torch.allclose(store["layers.1"].torch(), module(torch.tensor(IDS)).flatten(0, 1), atol=1e-6)
        inner = module.layers[0].inner(module.table(torch.tensor(IDS)).cumsum(1))
    assert torch.allclose(store["layers.0.inner"].torch(), inner.flatten(0, 1), atol=1e-6)


def test_edits_count_time_along_the_first_axis() -> None:
    module = seeded(TimeFirst)
    ids = torch.tensor(IDS[:3])
    with torch.no_grad():
        plain = module(ids)
    with ix.edit(ix.load(module), "layers.1", ix.edits.add(torch.ones(8), tokens=1)), torch.no_grad():
        edited = module(ids)
    assert torch.allclose(edited[:, 1], plain[:, 1] + 1, atol=1e-6)
    assert torch.equal(edited[:, 0], plain[:, 0])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_xlnet_gives_the_rows_that_transformers_returns(size: int) -> None:
    model = model_of("XLNet")
    store = ix.capture(model, IDS, "blocks.*.resid_post", "all", batch_size=size, progress=False)
    with torch.no_grad():
        told = model.module(torch.tensor(IDS), output_hidden_states=True).hidden_states
    for i in range(3):
        assert torch.allclose(store[f"blocks.{i}.resid_post"].torch(), told[i + 1].flatten(0, 1), atol=1e-5)


def test_a_site_of_a_later_run_has_the_shape_of_that_run() -> None:
    model = model_of("XLNet")
    shapes = {row.name: row.shape for row in model.sites()}
    assert model.resolve("blocks.1.attn_out")[0].call == 1  # dropout runs on the pattern first, then on what attention adds
    assert shapes["blocks.1.attn_out"] == shapes["blocks.1.resid_post"] == (2, 6, 16)


def test_a_classifier_without_an_id_for_padding_has_the_sites_of_its_trunk() -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=44, n_positions=32, bos_token_id=1, eos_token_id=2, num_labels=3)
    module = seeded(lambda: GPT2ForSequenceClassification(config))
    model = ix.load(module, tokenizer=families()["GPT-2"].load["tokenizer"])
    store = ix.capture(model, ["w0 w1 w2", "w3"], ["blocks.1.resid_post", "final_norm"], "all", progress=False)
    with torch.no_grad():
        told = module.transformer(torch.tensor([[4, 5, 6]])).last_hidden_state[0]
    assert torch.allclose(store["final_norm"].torch()[:3], told, atol=1e-5)
    with pytest.raises(SiteNotFoundError, match="no site 'logits': .*Cannot handle batch sizes > 1 if no padding token is defined"):
        model.resolve("logits")
    module.config.pad_token_id = 0  # and with one the head runs too
    assert ix.load(module).resolve("logits")[0].needs_logits
