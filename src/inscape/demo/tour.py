"""The tour with networks of the zoo: what learning does to representations, and how alike they are afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

import inscape as ix
from inscape import zoo
from inscape.demo.telling import Row, Teller, apart, extremes, fresh, spread, stated, titled
from inscape.results import Result, format_number
from inscape.store import Store
from inscape.training import trajectory

SITES = ("embed", "blocks.*.resid_post", "final_norm")
# One number of the whole geometry, one of who is next to whom: they can disagree, and the report shows where.
PAIR_MEASURES = ("linear_cka_debiased", "mutual_knn")
RESULTS = ("digits", "training", "seeds", "kinds", "profile")


@dataclass(frozen=True)
class Size:
    """How large the tour is: networks, training, and the held-out text that they read."""

    d: int = 64
    layers: int = 4
    context: int = 64
    steps: int = 512
    recurrent_steps: int = 256
    windows: int = 64
    rows: int = 1024
    draws: int = 200


SMALL = Size(d=32, layers=2, context=32, steps=128, recurrent_steps=64, windows=32, rows=512, draws=50)


def tour(out: Path, *, seed: int, small: bool, say: Teller) -> Path:
    """Digits first, because they take seconds; then a language model in training; then three language models side by side."""
    size = SMALL if small else Size()
    command = "inscape demo" + f" --seed {seed}" * bool(seed) + " --small" * small
    told = [titled(_digits(seed, say), "Digits: depth, before and after learning", command)]
    corpus = zoo.standard_library()
    texts = corpus.windows(size.windows, size.context)
    say(f"Training a GPT of {size.layers} layers on the {corpus.source}.")
    say(f"At every checkpoint it reads {len(texts)} held-out texts of {size.context} bytes …")
    watched, trained = _watched(size, corpus, texts, seed, say)
    told.append(titled(watched, "A language model while it learns; CKA is to its last step", command))
    other, recurrent = _others(size, corpus, seed, say)
    stores = [
        _read(out, f"GPT, seed {seed}", trained, texts, size),
        _read(out, f"GPT, seed {seed + 1}", other, texts, size),
        _read(out, "recurrent network", recurrent, texts, size),
    ]
    told += [titled(result, title, command) for title, result in _compared(stores, size, seed, say)]
    for name, result in zip(RESULTS, told, strict=True):
        result.save(out / "results" / name)
    return ix.report(*told, *stores, to=out / "report.html", title="What small networks represent, and how they come to it")


def _digits(seed: int, say: Teller) -> Result:
    """Class separation along the layers of a classifier, before and after training."""
    say("Training a classifier of handwritten digits: 4 layers of 64 units …")
    data = zoo.digits(seed=seed)
    trained = zoo.train_digits(zoo.DigitsMLP, data, seed=seed)
    parts: list[Result] = []
    for name, module in (("digits MLP, untrained", trained.untrained), ("digits MLP, trained", trained.module)):
        store = ix.capture(ix.load(module, name=name), data.images.numpy(), sites="layers.*", label=name, progress=False)
        parts.append(ix.measure(store, "class_separation", labels=data.labels.numpy(), null="permute", seed=seed))
    result = Result.merge(parts)
    before, after = (part.rows() for part in parts)
    first, last = after[0], after[-1]
    span = f"from {stated(first)} in layer 1 to {stated(last)} in layer {len(after)}"
    what = "class separation (between-class over within-class variance)"
    names = f"It names {trained.accuracy:.0%} of {len(data.labels)} held-out digits."
    if last["value"] > first["value"] and apart(first, last) and last["value"] > extremes(before)[1]["value"]:
        say.finding(f"{names} Layer by layer it moves them apart: {what} rises {span}.")
        say.finding(f"With its start weights it is {spread(before)} at every layer: learning does that, not depth.")
    else:
        say.finding(f"{names} Its {what} goes {span}; with its start weights it is {spread(before)}.")
    return result


def _watched(size: Size, corpus: zoo.Corpus, texts: list[str], seed: int, say: Teller) -> tuple[Result, nn.Module]:
    """Trains the first GPT and measures it on the way."""
    kept: list[zoo.Checkpoint] = []

    def run() -> Iterator[tuple[int, nn.Module]]:
        for checkpoint in zoo.train(_gpt(size), corpus, steps=size.steps, context=size.context, seed=seed):
            kept.append(checkpoint)
            if checkpoint.step in (0, 16) or checkpoint.step >= 128:
                say(f"  step {checkpoint.step}: {checkpoint.loss:.2f} nats a byte")
            yield checkpoint.step, checkpoint.module

    result = trajectory(
        run(),
        texts,
        sites=SITES,
        measures=["effective_rank", "linear_cka_debiased"],
        tokens="all",
        seed=seed,
        system=f"GPT, seed {seed}",
        tokenizer=zoo.ByteTokenizer(),
    )
    # The site that tells the story best is the one whose rank goes down and comes back furthest.
    stories = [_dip(result.where(measure="effective_rank", site=site).rows()) for site in result.unique("site")]
    start, bottom, end = max(stories, key=lambda rows: float(rows[2]["value"]) / float(rows[1]["value"]))
    path = f"{stated(start)} to {stated(bottom)} of {bottom['d']} dimensions at step {bottom['at']}"
    if apart(start, bottom) and apart(bottom, end) and start["value"] > bottom["value"]:
        say.finding(f"Learning first closes its representation, then opens it: at {bottom['site']} the effective rank falls from {path}.")
        say.finding(f"It grows again to {stated(end)} at step {end['at']}: few directions are in use at first, then more and more.")
    else:
        say.finding(f"At {end['site']} the effective rank goes from {path}, and to {stated(end)} at step {end['at']}.")
    return result, kept[-1].module


def _dip(rows: list[Row]) -> tuple[Row, Row, Row]:
    return rows[0], extremes(rows)[0], rows[-1]


def _others(size: Size, corpus: zoo.Corpus, seed: int, say: Teller) -> tuple[nn.Module, nn.Module]:
    """A GPT from another seed, and a network of another kind."""
    say("Training the same GPT from another seed …")
    other = _last(size, corpus, _gpt(size), size.steps, seed + 1)
    say(f"  step {other.step}: {other.loss:.2f} nats a byte. Training a recurrent network (GRU) of the same width and depth …")
    recurrent = _last(size, corpus, lambda: zoo.RecurrentLM(zoo.ByteTokenizer.vocab_size, size.d, size.layers), size.recurrent_steps, seed)
    say(f"  step {recurrent.step}: {recurrent.loss:.2f} nats a byte. Comparing the three, layer by layer …")
    return other.module, recurrent.module


def _compared(stores: list[Store], size: Size, seed: int, say: Teller) -> list[tuple[str, Result]]:
    """A profile of the three networks, and the first beside each of the others."""
    first, twin, stranger = stores
    profile = Result.merge(ix.measure(store, ["effective_rank", "participation_ratio", "mean_cosine"], seed=seed) for store in stores)
    seeds, kinds = (
        ix.compare(first, other, PAIR_MEASURES, null="permute", draws=size.draws, sample=size.rows, seed=seed) for other in (twin, stranger)
    )
    for result, what in ((seeds, "Two GPTs that differ only in their seed"), (kinds, "GPT and recurrent network")):
        rows = result.where(measure="linear_cka_debiased").rows()
        same = [row for row in rows if row["site"] == row["site_b"]]
        null = max(row["null_mean"] for row in rows if row["null_mean"] is not None)
        p = max(row["p_corrected"] for row in same if row["p_corrected"] is not None)
        say.finding(
            f"{what}: at equal depth their similarity (debiased CKA, 1 is the same geometry) is {spread(same)}; with shuffled texts it "
            f"averages at most {format_number(abs(null), 2)} (p ≤ {format_number(p, 2)}, corrected over {len(rows)} pairs of layers)."
        )
    closer = [
        name
        for name in seeds.unique("site")
        if (a := _at(seeds, name)) and (b := _at(kinds, name)) and apart(a, b) and a["value"] > b["value"]
    ]
    sites = len(seeds.unique("site"))
    say.finding(
        f"The kind of network matters more than the seed at {len(closer)} of {sites} depths: there the two GPTs are more alike "
        "than GPT and recurrent network, and their 95 % intervals do not meet."
    )
    return [
        ("Two GPTs that differ only in their seed", seeds),
        ("A GPT and a recurrent network", kinds),
        ("The three language models, layer by layer", profile),
    ]


def _at(result: Result, site: str) -> Row | None:
    rows = result.where(measure="linear_cka_debiased", site=site, site_b=site).rows()
    return rows[0] if rows and rows[0]["value"] is not None else None


def _gpt(size: Size) -> Callable[[], nn.Module]:
    return lambda: zoo.GPT(zoo.ByteTokenizer.vocab_size, size.d, size.layers, context=size.context)


def _last(size: Size, corpus: zoo.Corpus, make: Callable[[], nn.Module], steps: int, seed: int) -> zoo.Checkpoint:
    (checkpoint,) = zoo.train(make, corpus, steps=steps, context=size.context, seed=seed, saved=[steps])
    return checkpoint


def _read(out: Path, name: str, module: nn.Module, texts: list[str], size: Size) -> Store:
    folder = fresh(out / "stores" / name.replace(", ", "-").replace(" ", "-"))
    model = ix.load(module, tokenizer=zoo.ByteTokenizer(model_max_length=size.context), name=name)
    return ix.capture(model, texts, sites=SITES, tokens="all", to=folder, label=name, progress=False)
