"""Columns that say more than the stimulus: masks, positions, further arguments, one value per position, crossed values."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing import Stimuli
from inscape.errors import StimuliError

from .conftest import words

SITE = "blocks.1.resid_post"


def _hooked(module, layer, **inputs):
    seen = []
    handle = layer.register_forward_hook(lambda m, a, out: seen.append((out if torch.is_tensor(out) else out[0]).clone()))
    with torch.no_grad():
        module(**{name: torch.tensor(value)[None] for name, value in inputs.items()})
    handle.remove()
    return seen[0][0]


def test_a_mask_that_is_not_the_length_hides_a_token_from_the_others(make):
    module = make("gpt2")
    table = {"input_ids": [[5, 6, 7, 8], [9, 4]], "attention_mask": [[1, 0, 1, 1], [1, 1]]}
    store = ix.capture(module, table, SITE, "all")
    expected = _hooked(module, module.transformer.h[1], input_ids=[5, 6, 7, 8], attention_mask=[1, 0, 1, 1])
    torch.testing.assert_close(store[SITE].torch()[:4], expected, rtol=0, atol=1e-5)
    plain = ix.capture(module, {"input_ids": table["input_ids"]}, SITE, "all")[SITE].torch()
    assert not torch.allclose(plain[3], expected[3], atol=1e-3)
    torch.testing.assert_close(store[SITE].torch()[4:], plain[4:], rtol=0, atol=1e-5)
    assert store.manifest.plan["input"]["columns_read"] == ["attention_mask"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_that_somebody_else_added_gives_no_rows(make, side):
    module, rows = make("gpt2"), [[5, 6, 7, 8], [9, 4], [4]]
    pad = [[0] * (4 - len(row)) for row in rows]
    ids = [row + zeros if side == "right" else zeros + row for row, zeros in zip(rows, pad, strict=True)]
    ones = [[1] * len(row) for row in rows]
    mask = [one + zeros if side == "right" else zeros + one for one, zeros in zip(ones, pad, strict=True)]
    padded = ix.capture(module, {"input_ids": ids, "attention_mask": mask}, SITE, "all")[SITE]
    plain = ix.capture(module, rows, SITE, "all")[SITE]
    assert padded.column("token_id").tolist() == [token for row in rows for token in row]
    assert torch.equal(padded.torch(), plain.torch())


def test_position_ids_of_the_table_are_read(make):
    module = make("gpt2")
    store = ix.capture(module, {"input_ids": [[5, 6, 7], [8, 9]], "position_ids": [[4, 5, 9], [0, 1]]}, SITE, "all")
    expected = _hooked(module, module.transformer.h[1], input_ids=[5, 6, 7], position_ids=[4, 5, 9])
    torch.testing.assert_close(store[SITE].torch()[:3], expected, rtol=0, atol=1e-5)


def test_segments_of_the_table_are_read(make, bert_tokenizer):
    module = make("bert")
    table = {"text": [words(2), words(3)], "token_type_ids": [[0, 0, 1, 1], [0, 1, 1, 1, 1]]}
    store = ix.capture(ix.load(module, tokenizer=bert_tokenizer), table, SITE, "all")
    ids = bert_tokenizer(words(2))["input_ids"]
    expected = _hooked(module, module.encoder.layer[1], input_ids=ids, token_type_ids=[0, 0, 1, 1])
    torch.testing.assert_close(store[SITE].torch()[:4], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"input_ids": [[5, 6, 7]], "position_ids": [[0, 1]]},
            "column 'position_ids' has 2 values for stimulus '0', of which 3 tokens are read; give one value per token",
        ),
        (
            {"input_ids": [[5, 6]], "position_ids": [3]},
            "column 'position_ids' is an argument of the model; it must hold one whole number",
        ),
        ({"input_ids": [[5, 6]], "position_ids": [["a", "b"]]}, "it must hold one whole number per token for every stimulus"),
    ],
)
def test_columns_that_do_not_fit_are_refused(make, table, message):
    with pytest.raises(StimuliError, match=re.escape(message)):
        ix.capture(make("gpt2"), table, SITE)


def test_a_mask_that_the_model_has_no_argument_for_is_refused():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(10, 4)

        def forward(self, input_ids):
            return self.embed(input_ids)

    with pytest.raises(StimuliError, match="a column 'position_ids', and the forward of Net takes no position_ids; drop or rename it"):
        ix.capture(Net(), {"input_ids": [[1, 2]], "position_ids": [[4, 5]]}, "embed")
    assert ix.capture(Net(), {"input_ids": [[1, 2]], "position_ids": [[0, 1]]}, "embed")["embed"].n == 1  # says nothing new


def test_lists_with_one_value_per_token_become_columns_of_the_rows(make):
    table = {"input_ids": [[5, 6, 7], [8, 9]], "part": [["N", "V", "N"], ["V", "N"]], "at": [[0, 1], [1]]}
    view = ix.capture(make("gpt2"), table, SITE, "all")[SITE]
    assert view.column("part").tolist() == ["N", "V", "N", "V", "N"]
    last = ix.capture(make("gpt2"), table, SITE, "last")[SITE]
    assert last.column("part").tolist() == ["N", "N"]
    with_batches = ix.capture(make("gpt2"), table, SITE, "all", batch_size=1)[SITE]
    assert with_batches.column("part").tolist() == view.column("part").tolist()


def test_columns_named_like_arguments_are_passed_on():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(3, 3)

        def forward(self, x, scale, shift=None):
            return self.inner(x * scale[:, None] + (0 if shift is None else shift))

    torch.manual_seed(0)
    net, x = Net(), torch.randn(3, 3)
    table = {"array": list(x.numpy()), "scale": [1.0, 2.0, 3.0], "shift": [[0.0, 1.0, 2.0]] * 3, "labels": [0, 1, 0]}
    store = ix.capture(net, table, "inner")
    with torch.no_grad():
        expected = net(x, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(store["inner"].torch(), expected)
    assert store.manifest.plan["input"]["columns_read"] == ["scale", "shift"]
    with pytest.raises(StimuliError, match="column 'scale' is an argument of Net, and for stimulus '0' it holds 'big'; give numbers"):
        ix.capture(net, {"array": list(x.numpy()), "scale": ["big"] * 3}, "inner")


def test_stimuli_are_crossed_with_values():
    stimuli = Stimuli({"text": ["a", "b"], "id": ["x", "y"], "kind": [1, 2]}).crossed(timestep=[10, 20, 30], seed=[0, 1])
    assert len(stimuli) == 12 and stimuli.ids == ["x"] * 6 + ["y"] * 6
    assert stimuli.column("timestep")[:6] == [10, 10, 20, 20, 30, 30] and stimuli.column("seed")[:3] == [0, 1, 0]
    assert stimuli.column("kind") == [1] * 6 + [2] * 6 and stimuli[7] == "b"
    assert stimuli.table.num_rows == 2 and stimuli.varying == ["timestep", "seed"]
    plain = Stimuli(np.eye(3, dtype=np.float32)).crossed(timestep=[0, 1])
    assert plain.kind == "array" and plain[3].tolist() == [0, 1, 0] and plain.column("timestep") == [0, 1] * 3


def test_crossing_with_nothing_or_twice_is_refused():
    stimuli = Stimuli({"text": ["a", "b"], "kind": [1, 2]})
    with pytest.raises(StimuliError, match="the stimuli have a column 'kind' already; cross them with another name"):
        stimuli.crossed(kind=[1])
    with pytest.raises(StimuliError, match=re.escape("timestep=[] has no value to cross the stimuli with")):
        stimuli.crossed(timestep=[])


def test_another_column_as_stimuli_keeps_the_ids():
    stimuli = Stimuli({"text": ["a", "b"], "image": [np.zeros((2, 2, 3), np.uint8)] * 2, "id": ["x", "y"]})
    part = stimuli.part("image")
    assert (part.kind, part.ids, part[0].shape) == ("image", ["x", "y"], (2, 2, 3))
    with pytest.raises(StimuliError, match="the stimuli have no column 'picture'; nearest"):
        stimuli.part("picture")


def test_a_table_with_captions_still_reaches_a_model_that_sees(make):
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    model = ix.load(make("vit"))
    captioned = ix.capture(model, {"text": ["a cat", "a dog"], "image": list(images)}, SITE, "mean")[SITE]
    assert torch.equal(captioned.torch(), ix.capture(model, images, SITE, "mean")[SITE].torch())
