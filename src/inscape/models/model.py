"""A loaded model: its sites, and runs with hooks that leave nothing behind."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from inscape.errors import InscapeError
from inscape.models.atlas import Atlas
from inscape.models.calling import Caller, Forward
from inscape.models.examples import examples, form
from inscape.models.hooks import Chain, Pass, Reader, StopForward, Writer, reading, writing
from inscape.models.identity import identity_of, versions_of
from inscape.models.placement import input_device, put_back
from inscape.models.sites import Site, SiteTable
from inscape.models.wrappers import Eagerly, core


class Model:
    """A network with names for its inside. Made by `inscape.load`.

    Attributes:
        module: the `torch.nn.Module` itself, unchanged.
        name: short label.
        modality: "text", "image", "audio", "multimodal" (text beside one of the others) or "tensor": what its stimuli are.
        family: architecture ("gpt2", "vit", …), or the class name.
        tokenizer: turns text into ids, or `None`.
        processor: turns images or sound into tensors, or `None`.
        config: the model's configuration, or `None`.
        padding_stays_out: whether padding leaves rows as they are, by side, dtype and sites, as captures found it.

    Example:
        >>> model = ix.load(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
        >>> [site.name for site in model.resolve("1")]
        ['1']
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        modality: str,
        family: str,
        tokenizer: Any = None,
        processor: Any = None,
        forward: Forward | None = None,
        folder: str | None = None,
    ) -> None:
        self.module = module
        self.name = name
        self.modality = modality
        self.family = family
        self.tokenizer = tokenizer
        self.processor = processor
        self.config: Any = getattr(core(module), "config", None)
        self._caller = Caller(module, forward, modality, self.config)
        self._folder = folder
        self._versions = versions_of(module) if folder is not None else None
        self._pass = Pass()
        self._chains: dict[tuple[str, str], Chain] = {}
        self._evaluating = 0
        self._eagerly = Eagerly()
        self.edited: list[Any] = []  # the edits that are open, outermost first: rows read now are theirs
        self.padding_stays_out: dict[tuple[Any, ...], bool] = {}
        self._atlas: Atlas | None = None

    @property
    def device(self) -> torch.device:
        """Where the inputs go: the device on which the first part with weights runs."""
        return input_device(self.module)

    @property
    def as_loaded(self) -> bool:
        """Whether the weights are still those that were read from a folder or a download, so that its commit or files tell them."""
        return self._folder is not None and versions_of(self.module) == self._versions

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the floating parameters."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    @property
    def has_trunk(self) -> bool:
        """Whether a pass without the head is possible (`run(..., trunk_only=True)`)."""
        return self._caller.has_trunk

    @property
    def forward(self) -> Forward | None:
        """`forward(module, batch)`, where the user gave one."""
        return self._caller.forward

    @property
    def towers(self) -> tuple[str, ...]:
        """Names of the stacks of a model that has several, such as `("encoder", "decoder")`; a language model's own is ""."""
        found = self.atlas().stacks.towers
        return tuple(tower.name for tower in found) if len(found) > 1 else ()

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.module.parameters())
        return f"Model({self.name!r}, {self.modality}, {self.family}, {size:,} parameters, {self.dtype}, {self.device})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module itself; open edits and readers act."""
        return self.module(*args, **kwargs)

    def atlas(self, example: Any = None) -> Atlas:
        """The map of the model, made by a dry run at first use, or anew from an `example` of another form."""
        if self._atlas is None or (example is not None and (not self._atlas.form or form(example) != self._atlas.form)):
            path = next((path for path, part in self.module.named_modules() if part is self._caller.trunk), "")
            atlas = Atlas(self.module, self.modality, self.config, path, self.has_trunk)

            def plans() -> Iterable[list[tuple[str, Any]]]:
                return [[("the given example", example)]] if example is not None else examples(self.module, self.modality, self.config)

            integers = any(isinstance(part, nn.Embedding) for part in self.module.modules())
            with self.evaluating(), self._eagerly(), _same_random_numbers():
                atlas.survey(plans(), lambda batch: self._caller(self.module, batch), integers=integers)
                if atlas.record is None and self.has_trunk:
                    # A head may ask for more than the rest: a classifier for the id of the padding, say.
                    problem = atlas.problem
                    atlas.survey(plans(), lambda batch: self._caller(self._caller.trunk, batch), integers=integers)
                    if atlas.record is not None:
                        atlas.head_fails(problem)
                if self._caller.starts_itself is None:
                    self._caller.try_without_decoder_inputs(next(examples(self.module, self.modality, self.config))[0][1])
            self._atlas = atlas
        return self._atlas

    def sites(self, example: Any = None) -> SiteTable:
        """All places that can be read or edited, with their shapes: canonical names, then every module by its path.

        Args:
            example: a batch to take shapes from; needed where no input can be made up for the model.
        """
        return self.atlas(example).table(f"sites of {self.name} ({self.family}, {self.modality})")

    def resolve(self, patterns: str | Site | Sequence[str | Site], *, example: Any = None, split_calls: bool = True) -> list[Site]:
        """The sites that names stand for, in the order asked, without repetition.

        A name is canonical (`blocks.3.resid_post`, also `blocks.-1.resid_post`), TransformerLens's (`blocks.3.hook_resid_post`), or
        a module path (`transformer.h.3`, `transformer.h.3:in`, `transformer.h.3#1` for the second of several calls). `*` stays
        within one dotted part, `**` crosses dots. `path:out` always means the module.

        Args:
            patterns: one name, or several.
            example: a batch for the dry run; needed where no input can be made up for the model.
            split_calls: a module that runs several times gives one site per call (`path#0`, `path#1`, …).

        Raises:
            SiteNotFoundError: a name stands for nothing; the message gives the reason or the three nearest names.
        """
        wanted = [patterns] if isinstance(patterns, (str, Site)) else list(patterns)
        atlas = self.atlas(example)
        found: dict[str, Site] = {}
        for pattern in wanted:
            if isinstance(pattern, Site):
                found.setdefault(pattern.name, pattern)
                continue
            sites = atlas.find(pattern, split_calls=split_calls)
            if not sites:
                raise atlas.missing(pattern)
            for site in sites:
                found.setdefault(site.name, site)
        return list(found.values())

    @contextmanager
    def hooked(self, sites: str | Sequence[str | Site], reader: Reader, *, stop_after_last: bool = False) -> Generator[None]:
        """Calls `reader(site_name, activations)` whenever a site runs, for as many passes as happen inside the `with` block.

        The activations may be views of memory that later layers overwrite: the reader copies what it keeps. Edits that are open act first.
        All hooks are gone at the end, also after an error.

        Args:
            sites: names or sites; resolved once.
            reader: takes the site's name and a tensor `[b, t, d]` or `[b, d]`.
            stop_after_last: passes started by `run` end once every site has been read; they return `None`.
        """
        with ExitStack() as stack:
            stack.callback(put_back, self.module)  # a pass that stops early leaves offloaded weights of the parts around it in place
            stack.enter_context(self.evaluating())
            stack.enter_context(self._eagerly())
            stack.enter_context(reading(self.module, self.resolve(sites), reader, self._pass, stop_after_last))
            yield

    @contextmanager
    def written(self, pairs: Sequence[tuple[Site, Writer]]) -> Generator[None]:
        """Lets writers change what sites hold while the block runs; `inscape.edit` is made of this.

        Writers of one place act in the order in which they were opened, and before every reader.

        Args:
            pairs: sites with `writer(activations, moment) -> activations`.
        """
        with self._eagerly(), writing(self.module, self._watched(), pairs, self._pass, self._chains):
            yield

    def _watched(self) -> list[nn.Module]:
        """The modules whose arguments tell where in a sequence a pass is: the model, and each of its towers for itself."""
        towers = [self.module.get_submodule(tower.path) for tower in self.atlas().stacks.towers if tower.path]
        return [self.module, self._caller.trunk, *towers]

    def width(self, site: Site) -> int | None:
        """Number of units of a site, where the dry run saw it."""
        shape = self.atlas().rows(site)
        return None if shape is None else shape[-1]

    @contextmanager
    def evaluating(self) -> Generator[None]:
        """Evaluation mode (no dropout) while the block runs; each part's training flag comes back afterwards."""
        training = [part for part in self.module.modules() if part.training] if self._evaluating == 0 else []
        self._evaluating += 1
        for part in training:
            part.training = False
        try:
            yield
        finally:
            self._evaluating -= 1
            for part in training:
                part.training = True

    def run(self, batch: Any, *, trunk_only: bool = False, stop: bool = False) -> Any:
        """One forward pass without gradients, in evaluation mode.

        Args:
            batch: keyword arguments of the module's forward (or one tensor, for a module that takes one). Of a model that reads text
                beside images or sounds, the inputs of one of them run that part alone. An encoder-decoder without decoder inputs
                starts its decoder with its start token, unless it makes them itself.
            trunk_only: skips the head; sites with `needs_logits` do not fire.
            stop: ends the pass once every open reader has been served.

        Returns:
            What the module returns, or `None` when the pass was stopped early.
        """
        if self._caller.undecided(batch):
            self.atlas()
        running = self._pass
        if running.inside:
            raise InscapeError("Model.run was called from inside a pass of the same model; let the first pass finish")
        with ExitStack() as stack:
            if self._evaluating == 0:
                stack.enter_context(self.evaluating())
            running.begin()
            running.inside, running.stop = True, stop
            try:
                with torch.no_grad():
                    return self._caller(self._caller.trunk if trunk_only else self.module, batch)
            except StopForward:
                return None
            finally:
                running.inside = running.stop = False
                running.release()

    def identity(self, weights: bool = False) -> dict[str, Any]:
        """What tells this model from others: class, configuration hash, dtype, commit or file hashes where known.

        Args:
            weights: also hash every parameter and buffer (reads all of them once).
        """
        return identity_of(self.module, self.config, name=self.name, folder=self._folder, weights=weights)

    def generate(self, text: str, max_new_tokens: int = 20, **options: Any) -> str:
        """The continuation of a text, greedy unless `options` of the module's own `generate` say otherwise; open edits act.

        Raises:
            InscapeError: the model has no tokenizer or cannot generate.
        """
        if self.tokenizer is None or not hasattr(self.module, "generate"):
            lacks = "tokenizer" if self.tokenizer is None else "method `generate`"
            raise InscapeError(
                f"model {self.name!r} has no {lacks}, so it cannot continue a text; load a language model with its tokenizer"
            )
        encoded = self.tokenizer(text, return_tensors="pt").to(self.device)
        given = encoded["input_ids"].shape[1]
        module: Any = self.module
        with self.evaluating(), torch.no_grad():
            ids = module.generate(**encoded, max_new_tokens=max_new_tokens, **{"do_sample": False, **options})
        return self.tokenizer.decode(ids[0, given:], skip_special_tokens=True)


@contextmanager
def _same_random_numbers() -> Generator[None]:
    """Leaves torch's random state as it was: looking at a model must not change an experiment."""
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
