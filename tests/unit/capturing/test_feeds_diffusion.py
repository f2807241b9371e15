"""Diffusion models over timesteps: the noise is the scheduler's, belongs to the stimulus, and is the same at every run."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing import Stimuli
from inscape.errors import StimuliError
from inscape.zoo import DigitsDiT

from .tower_models import hooked

STEPS = [5, 50, 95]


@pytest.fixture(scope="module")
def dit():
    torch.manual_seed(0)
    module = DigitsDiT(d=16, layers=2).eval()
    for parameter in module.parameters():  # the gates start at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def _images(count: int = 3, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, channels, 8, 8)).astype(np.float32)


def _noise(name: str, seed: int = 0, channels: int = 1) -> torch.Tensor:
    """The noise of a stimulus, as the docs state it: torch's, from the first 63 bits of a hash of seed and id."""
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1
    return torch.randn(channels, 8, 8, generator=torch.Generator().manual_seed(key))


def test_rows_are_those_of_a_hook_on_the_noised_image_and_know_their_timestep(dit):
    stimuli = Stimuli(_images()).crossed(timestep=STEPS)
    store = ix.capture(dit, stimuli, ["blocks.1.resid_post", "blocks.0.attn_out"], "all")
    view = store["blocks.1.resid_post"]
    assert (view.kind, view.n) == ("patch", 3 * 3 * 16)
    assert view.column("timestep").tolist() == [step for _ in range(3) for step in STEPS for _ in range(16)]
    rows = view.torch().reshape(3, 3, 16, -1)
    for i in range(3):
        for j, step in enumerate(STEPS):
            given = dit.add_noise(torch.from_numpy(_images()[i])[None], _noise(str(i))[None], torch.tensor([step]))
            expected = hooked(dit.blocks[1], lambda given=given, step=step: dit(given, torch.tensor([step])))
            torch.testing.assert_close(rows[i, j], expected[0], rtol=0, atol=1e-5)
    assert store.manifest.plan["input"]["noise"] == {"by": "DigitsDiT", "seed": 0, "of": "the stimulus id"}


def test_timesteps_can_be_set_beside_each_other(dit):
    store = ix.capture(dit, Stimuli(_images(12)).crossed(timestep=STEPS), "blocks.1.resid_post", "mean")
    view = store["blocks.1.resid_post"]
    at = {step: view.select(rows=view.column("timestep") == step) for step in STEPS}
    near = ix.compare(at[5], at[50], "linear_cka").frame()["value"].iloc[0]
    x, y = (at[step].numpy() - at[step].numpy().mean(0) for step in (5, 50))
    expected = np.square(x.T @ y).sum() / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert near == pytest.approx(expected, abs=1e-5)


def test_a_seed_gives_other_noise_and_labels_are_passed_on(dit):
    table = {"image": list(_images(2)), "timestep": [50, 50], "noise_seed": [3, 4], "label": [7, 1]}
    store = ix.capture(dit, table, "blocks.1.resid_post", "all")
    assert store.manifest.plan["input"]["noise"]["seed"] == "column noise_seed"
    assert store.manifest.plan["input"]["columns_read"] == ["label", "timestep"]
    rows = store["blocks.1.resid_post"].torch().reshape(2, 16, -1)
    time = torch.tensor([50])
    for i in range(2):
        given = dit.add_noise(torch.from_numpy(_images(2)[i])[None], _noise(str(i), table["noise_seed"][i])[None], time)
        expected = hooked(dit.blocks[1], lambda given=given, i=i: dit(given, time, torch.tensor([table["label"][i]])))
        torch.testing.assert_close(rows[i], expected[0], rtol=0, atol=1e-5)


def test_a_scheduler_of_diffusers_makes_the_noise(dit):
    from diffusers import DDPMScheduler, DiTTransformer2DModel

    torch.manual_seed(0)
    sizes = {"num_attention_heads": 4, "attention_head_dim": 4, "num_layers": 2, "sample_size": 8, "patch_size": 2, "norm_num_groups": 4}
    module = DiTTransformer2DModel(in_channels=3, out_channels=3, num_embeds_ada_norm=10, **sizes).eval()
    scheduler, images = DDPMScheduler(beta_schedule="squaredcos_cap_v2"), _images(2, 3)
    table = {"image": list(images), "timestep": [10, 700], "class_labels": [0, 3]}
    store = ix.capture(ix.load(module, processor=scheduler), table, "blocks.1.resid_post", "all")
    assert "DDPMScheduler" in store.manifest.plan["input"]["noise"]["by"] and "squaredcos" in store.manifest.plan["input"]["noise"]["by"]
    rows = store["blocks.1.resid_post"].torch().reshape(2, 16, -1)
    for i, step in enumerate(table["timestep"]):
        noise, time = _noise(str(i), channels=3)[None], torch.tensor([step])
        noisy = scheduler.add_noise(torch.from_numpy(images[i])[None], noise, time)
        label = torch.tensor([table["class_labels"][i]])
        expected = hooked(module.transformer_blocks[1], lambda noisy=noisy, time=time, label=label: module(noisy, time, label))
        torch.testing.assert_close(rows[i], expected[0], rtol=0, atol=1e-5)
    # Without a scheduler the images are taken as they are, noise and all.
    plain = ix.capture(ix.load(module), table, "blocks.1.resid_post", "all")
    assert plain.manifest.plan["input"]["noise"] == {"by": "none: the images are read as they are"}
    expected = hooked(module.transformer_blocks[1], lambda: module(torch.from_numpy(images), torch.tensor([10, 700]), torch.tensor([0, 3])))
    torch.testing.assert_close(plain["blocks.1.resid_post"].torch().reshape(2, 16, -1), expected, rtol=0, atol=1e-5)


def test_pixels_of_eight_bits_lie_between_minus_one_and_one(dit):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8)
    table = {"image": list(pixels), "timestep": [0, 0]}
    floats = {"image": list(pixels[:, None].astype(np.float32) / 255 * 2 - 1), "timestep": [0, 0]}
    a, b = (ix.capture(dit, t, "blocks.0.resid_pre", "all")["blocks.0.resid_pre"].torch() for t in (table, floats))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_what_is_missing_is_told(dit):
    message = (
        "DigitsDiT reads the timestep of each image (its forward takes 'timestep'), and the stimuli have no column 'timestep'; give every "
        "image one, or each of several: ix.Stimuli(images).crossed(timestep=[10, 100, 500])"
    )
    with pytest.raises(StimuliError, match=re.escape(message)):
        ix.capture(dit, _images(), "blocks.0.resid_post")
    with pytest.raises(StimuliError, match=re.escape("DigitsDiT reads images; got stimuli of kind 'tokens'. Give arrays")):
        ix.capture(dit, {"input_ids": [[1, 2]], "timestep": [3]}, "blocks.0.resid_post")
