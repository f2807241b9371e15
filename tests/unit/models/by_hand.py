"""What a reader by hand does: hooks, captures of all sites, adapters; shared by the tests of models that something stands around."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import inscape as ix

IDS = [[5, 9, 13, 7, 2, 30], [8, 3, 44, 21, 17, 6], [10, 11, 12, 13, 14, 15]]
SITES = ["embed", "blocks.*.*", "final_norm", "logits"]
EVERY = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_act", "q", "k", "v", "z"]


def captured(model: Any, sites: Any = SITES) -> dict[str, Tensor]:
    store = ix.capture(model, IDS, sites, "all", batch_size=3)
    return {site: store[site].torch() for site in store.sites}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and len(a) > 0 and all(torch.equal(a[site], b[site]) for site in a)


def hand(module: nn.Module, run: nn.Module, path: str, port: str = "out") -> Tensor:
    """What a hook by hand sees at a module of `run`, over all tokens."""
    seen: list[Tensor] = []

    def keep(value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        seen.append(value.detach().flatten(0, 1).clone())

    target = module.get_submodule(path)
    if port == "out":
        handle = target.register_forward_hook(lambda m, a, o: keep(o))
    else:
        handle = target.register_forward_pre_hook(lambda m, a: keep(a))
    with torch.no_grad():
        run(torch.tensor(IDS))
    handle.remove()
    return seen[0]


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits


def adapted(module: nn.Module, name: str = "default", seed: int = 0, **options: Any) -> Any:
    import peft

    torch.manual_seed(seed)
    conv = hasattr(module, "transformer")
    targets = ["c_attn", "c_proj", "c_fc"] if conv else ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(target_modules=targets, r=4, init_lora_weights=False, fan_in_fan_out=conv, **options)
    return peft.get_peft_model(module, config, adapter_name=name).eval()
