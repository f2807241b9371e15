"""What must hold for every family of models; each case is one entry of the catalog."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inscape as ix
from inscape.errors import SiteNotFoundError
from inscape.models import Site
from inscape.models.names import to_alias
from inscape.models.values import Layout
from tests.families.catalog import TRANSFORMER, families, first_of, model_of
from tests.families.observed import canonical, captured, captured_first, drift, listed, pattern_gap, readable, run_by_hand
from tests.families.page import page, without_measurements
from tests.unit.models.conftest import footprint, same_footprint

NAMES = list(families())
PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_promised_site_is_listed_with_a_shape_and_every_lacking_one_with_its_reason(name):
    rows, family = canonical(name), families()[name]
    for site in family.sites:
        assert site in rows, f"{site} is not listed; there are {', '.join(rows)}"
        assert rows[site].available and rows[site].shape is not None, f"{site}: {rows[site]}"
    for site, reason in family.lacks.items():
        assert site in rows and not rows[site].available, f"{site} should be listed as not available"
        assert reason in rows[site].note


def test_shapes_that_are_listed_have_the_width_of_what_is_captured(name):
    store = captured_first(name)
    for site in readable(name):
        if site in listed(name) and listed(name)[site].shape is not None:
            assert listed(name)[site].shape[-1] == store[site].d, site
        else:
            assert site in families()[name].paths, f"{site} is listed without a shape"


def _by_hand(name: str, run: Any) -> dict[str, Tensor]:
    """What plain hooks see at the sites while `run` runs: rows of the first stimulus."""
    model = model_of(name)
    seen: dict[str, Tensor] = {}
    handles = []

    def keep(site: Site, value: Any, place: dict[str, int]) -> None:
        call = place["calls"] = place.get("calls", -1) + 1
        if site.call is None or site.call == call:
            seen[site.name] = _rows(site, value)

    for site in model.resolve(list(readable(name))):
        module, place = model.module.get_submodule(site.path), {}
        if site.port == "out":
            handles.append(module.register_forward_hook(lambda m, args, out, s=site, p=place: keep(s, out, p)))
        else:
            handles.append(
                module.register_forward_pre_hook(lambda m, args, kwargs, s=site, p=place: keep(s, (args, kwargs), p), with_kwargs=True)
            )
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _rows(site: Site, value: Any) -> Tensor:
    """The rows in what a hook was given, put together here, not by the library, except where the site is a slice of an output."""
    if replace(site.layout, time_first=False, channels_first=False) != Layout() or site.pick is not None:
        assert site.grid is None
        return site.read(value)[:1].flatten(0, -2).clone()
    while not isinstance(value, Tensor):
        parts = value.values() if isinstance(value, dict) or hasattr(value, "keys") else value
        value = next(part for part in parts if _holds_floats(part))
    if site.layout.time_first:
        value = value.transpose(0, 1)
    if site.layout.channels_first:
        value = value.flatten(2).transpose(1, 2) if value.ndim > 2 else value
    if site.grid is None:  # with stimuli and positions on one axis, all rows are those of the only stimulus
        value = value[:1]
    return value.reshape(-1, value.shape[-1]).clone()


def _holds_floats(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point()
    parts = value.values() if hasattr(value, "values") else value if isinstance(value, (list, tuple)) else ()
    return any(_holds_floats(part) for part in parts)


def test_a_capture_is_bit_for_bit_what_a_hand_written_hook_sees(name):
    family, model = families()[name], model_of(name)
    store = captured_first(name)
    expected = _by_hand(name, lambda: run_by_hand(name, model.module))
    if not expected:  # the hooks look on while the capture runs
        options = {"batch_size": 1, "progress": False}
        expected = _by_hand(name, lambda: ix.capture(model, first_of(family.stimuli()), list(readable(name)), "all", **options))
    for site in readable(name):
        assert torch.equal(store[site].torch(), expected[site]), f"{site} differs from the hook"


def test_a_stimulus_in_a_batch_gives_the_rows_that_it_gives_alone(name):
    family = families()[name]
    for side in family.sides or (None,):
        for site, value in drift(name, side).items():
            assert value <= family.tolerance, f"{site}, {side} padding: {value:.2g} of the rms"


def test_attention_patterns_are_those_of_a_twin_with_eager_attention(name):
    gap = pattern_gap(name)
    assert gap is None or gap <= 1e-5


def lacking(name: str) -> dict[str, str]:
    """Every canonical site that is listed as not available, once for all blocks, with its reason."""
    found: dict[str, str] = {}
    told: set[tuple[str, str]] = set()
    for site, row in canonical(name).items():
        kind = re.sub(r"\d+", "", site), re.sub(r"\d+", "", row.note)
        if not row.available and kind not in told:
            told.add(kind)
            found[site] = row.note
    return {**found, **families()[name].lacks}


def test_unknown_and_impossible_sites_are_refused_before_anything_runs(name):
    family, model = families()[name], model_of(name)
    model.atlas()
    forwards: list[int] = []
    handles = [part.register_forward_pre_hook(lambda m, args: forwards.append(1)) for part in model.module.modules()]
    try:
        with pytest.raises(SiteNotFoundError, match="nearest"):
            ix.capture(model, family.stimuli(), sites="blocks.0.resid_pots")
        for site, reason in lacking(name).items():
            with pytest.raises(SiteNotFoundError) as error:
                ix.capture(model, first_of(family.stimuli()), sites=site)
            assert reason in str(error.value), site
    finally:
        for handle in handles:
            handle.remove()
    assert not forwards


def test_nothing_is_left_on_the_model(name):
    family, model = families()[name], model_of(name)
    parts = list(model.module.modules())
    parts[-1].training = True  # a flag that must come back as it was
    before = footprint(model.module)
    try:
        ix.capture(model, first_of(family.stimuli()), list(readable(name)), "all", progress=False)
        assert same_footprint(before, footprint(model.module))
    finally:
        parts[-1].training = False


def test_transformer_lens_names_mean_the_same_sites(name):
    model = model_of(name)
    for site in readable(name):
        alias = to_alias(site)
        if alias:
            assert [found.name for found in model.resolve(alias)] == [site], alias


def test_the_catalog_asks_for_transformer_lens_names_where_blocks_are_plain():
    assert to_alias(TRANSFORMER[0]) == "blocks.1.hook_resid_pre"
    assert captured("GPT-2").complete


def test_the_page_of_models_and_sites_is_what_these_tests_see():
    assert without_measurements(page()) == without_measurements(PAGE.read_text()), "run: make models-page"
