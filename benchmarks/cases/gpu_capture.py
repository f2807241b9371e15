"""What a capture to disk costs on a GPU, over the model's own forward pass."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.models import gpt2, token_ids

RESIDUALS = "blocks.*.resid_post"


def as_downloaded(model: torch.nn.Module, folder: Path) -> Path:
    """Saves a model as a download cache keeps it, files named by their hashes, so that nobody needs to read them to know them."""
    made = folder / "snapshot"
    model.save_pretrained(made)
    for file in made.glob("*.safetensors"):
        with open(file, "rb") as data:
            blob = folder / hashlib.file_digest(data, "sha256").hexdigest()
        file.rename(blob)
        file.symlink_to(blob)
    return made


@case("gpu_capture")
def gpu_capture(tiny: bool) -> Generator[Setup]:
    """All residual streams of a GPT-2 of the largest shape, in bfloat16, written to disk from a GPU."""
    cuda = torch.cuda.is_available()
    if not cuda and not tiny:
        yield Setup({}, {}, notes={"left out": "there is no CUDA device here"})
        return
    device = torch.device("cuda" if cuda else "cpu")
    layers, width, heads, vocabulary, texts, length = (2, 32, 4, 100, 12, 16) if tiny else (48, 1600, 25, 50257, 64, 1024)
    folder = Path(tempfile.mkdtemp())
    made = gpt2(layers=layers, width=width, heads=heads, vocabulary=vocabulary).to(torch.bfloat16)
    wrapped = ix.load(as_downloaded(made, folder / "model"), device=device, dtype=torch.bfloat16)
    model = wrapped.module
    ids = token_ids(texts, length, vocabulary)
    batch = 4 if tiny else 16
    batches = [torch.from_numpy(ids[start : start + batch]).to(device) for start in range(0, texts, batch)]
    target = folder / "store"

    def timed(run: Callable[[], object]) -> Callable[[], None]:
        def until_done() -> None:
            run()
            if cuda:
                torch.cuda.synchronize()

        return until_done

    def forward() -> None:
        with torch.inference_mode():
            for part in batches:
                model(part, use_cache=False)

    def capture(tokens: str, to: Path | None) -> None:
        options = {"batch_tokens": batch * length, "batch_size": batch, "progress": False}
        ix.capture(wrapped, ids, sites=RESIDUALS, tokens=tokens, to=to, **options)

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)

    subjects = {
        "forward": Subject(timed(forward)),
        "last_to_disk": Subject(timed(lambda: capture("last", target)), reset=clean),
        "all_to_disk": Subject(timed(lambda: capture("all", target)), reset=clean),
        "mean_in_memory": Subject(timed(lambda: capture("mean", None))),
    }
    where = torch.cuda.get_device_name(device) if cuda else "cpu"
    figures = {
        "all": Figure(
            f"a capture of every token to disk over the bare forward pass, on {where}", ratio("all_to_disk", "forward", "wall"), 1.10
        ),
        "last": Figure("the same with the last token of each text", ratio("last_to_disk", "forward", "wall"), 1.10),
        "mean": Figure("the same with the mean over tokens, in memory", ratio("mean_in_memory", "forward", "wall"), 1.10),
    }
    stored = texts * length * layers * width * 2
    notes = {"device": where, "texts": [texts, length], "bytes_of_all": stored, "parameters": sum(p.numel() for p in model.parameters())}
    yield Setup(subjects, figures, notes=notes)
    shutil.rmtree(folder, ignore_errors=True)
