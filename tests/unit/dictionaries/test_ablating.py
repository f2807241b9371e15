"""Taking features away: the edit against arithmetic by hand, and against what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.dictionaries import Dictionary
from inscape.errors import DictionaryError

SITE = "blocks.0.resid_post"
IDS = torch.from_numpy(np.random.default_rng(5).integers(0, 20, (3, 9)))


@pytest.fixture(scope="module")
def net() -> ix.zoo.GPT:
    torch.manual_seed(0)
    return ix.zoo.GPT(vocab=20, d=8, layers=2, heads=2, context=12)


@pytest.fixture(scope="module")
def sae() -> Dictionary:
    rng = torch.Generator().manual_seed(6)
    W = torch.randn(12, 8, generator=rng)
    tensors = {"W_enc": torch.randn(8, 12, generator=rng), "W_dec": W, "b_enc": torch.zeros(12), "b_dec": torch.ones(8)}
    return Dictionary(ix.dictionaries.ReLU(width=12), tensors)


def held(net: ix.zoo.GPT) -> torch.Tensor:
    return ix.capture(net, IDS, SITE, tokens="all")[SITE].torch()


def test_what_the_features_write_is_gone_and_nothing_else(net: ix.zoo.GPT, sae: Dictionary) -> None:
    x = held(net)
    z = torch.relu((x - 1) @ sae.W_enc)  # by hand: b_dec is 1 everywhere, b_enc 0
    z[:, [i for i in range(12) if i not in (2, 11)]] = 0
    with ix.edit(net, SITE, ix.dictionaries.ablate_features(sae, [2, -1])):
        assert torch.allclose(held(net), x - z @ sae.W_dec, atol=1e-6)
    with ix.edit(net, SITE, ix.dictionaries.ablate_features(sae, range(12))):
        missed = x - torch.relu((x - 1) @ sae.W_enc) @ sae.W_dec  # what the dictionary misses, and its offset, stay
        assert torch.allclose(held(net), missed, atol=1e-5)
    with ix.edit(net, SITE, ix.dictionaries.ablate_features(sae, [])):
        assert torch.equal(held(net), x)
    with ix.edit(net, SITE, ix.dictionaries.ablate_features(sae, 2, tokens=torch.arange(9) == 4)):
        changed = (held(net) != x).any(1).view(3, 9)
    active = ((x - 1) @ sae.W_enc[:, 2] > 0).view(3, 9)
    assert torch.equal(changed[:, 4], active[:, 4]) and not changed[:, :4].any() and not changed[:, 5:].any()


def test_signed_codes_are_taken_away_as_by_projection(net: ix.zoo.GPT) -> None:
    x = held(net)
    pca = ix.decompose(x, ix.dictionaries.PCA(width=8))
    with ix.edit(net, SITE, ix.dictionaries.ablate_features(pca, 0)):
        found = held(net)
    first = pca.W_dec[0]
    assert torch.allclose(found, x - ((x - pca.b_dec) @ first)[:, None] * first, atol=1e-5)


def test_its_record_names_features_and_dictionary(net: ix.zoo.GPT, sae: Dictionary) -> None:
    edit = ix.dictionaries.ablate_features(sae, 2)
    told = ix.edit(net, SITE, edit).describe()[0]
    assert told["features"] == [2] and told["dictionary"]["kind"] == "ReLU" and len(told["dictionary"]["sha256"]) == 64
    assert repr(edit).startswith("ablate_features(Dictionary(ReLU(width=12")


def test_what_cannot_be_taken_away_is_refused(net: ix.zoo.GPT, sae: Dictionary) -> None:
    with pytest.raises(DictionaryError, match="there is no feature 12"):
        ix.dictionaries.ablate_features(sae, [0, 12])
    with pytest.raises(DictionaryError, match="normalized for itself"):
        ix.dictionaries.ablate_features(Dictionary(sae.recipe, sae.tensors, per_row="layer_norm"), 0)
    pair = Dictionary(ix.dictionaries.Transcoder(width=12, k=2), sae.tensors)
    with pytest.raises(DictionaryError, match="Transcoder does not write the one site that it reads"):
        ix.dictionaries.ablate_features(pair, 0)
    narrow = ix.decompose(torch.randn(40, 4, generator=torch.Generator().manual_seed(7)), ix.dictionaries.PCA(width=2))
    with pytest.raises(DictionaryError, match="has 8 units, the dictionary reads 4"):
        ix.edit(net, SITE, ix.dictionaries.ablate_features(narrow, 0))
