"""Errors keep their text, their built-in parent, and their advice."""

from __future__ import annotations

import difflib

import pytest

from inscape import errors


def test_the_text_is_printed_as_it_was_written():
    text = "site 'h.3' matches nothing; nearest: 'blocks.3'"
    with pytest.raises(errors.InscapeError) as caught:
        raise errors.SiteNotFoundError(text)
    assert str(caught.value) == text  # a bare KeyError would print its repr
    assert str(errors.InscapeError()) == ""


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.SiteNotFoundError, KeyError),
        (errors.StoreMismatchError, ValueError),
        (errors.StoreIncompleteError, RuntimeError),
        (errors.StoreCorruptError, OSError),
        (errors.StimuliError, ValueError),
        (errors.TooFewStimuliError, ValueError),
        (errors.DegenerateInputError, ValueError),
        (errors.UnknownMeasureError, KeyError),
        (errors.MissingExtraError, ImportError),
        (errors.MemoryBudgetError, MemoryError),
        (errors.ResultError, ValueError),
        (errors.EditError, ValueError),
        (errors.DictionaryError, ValueError),
        (errors.MapError, ValueError),
        (errors.DivergenceError, ArithmeticError),
        (errors.InscapeWarning, UserWarning),
    ],
)
def test_each_is_also_the_builtin_that_fits(kind: type[Exception], builtin: type[Exception]):
    assert issubclass(kind, builtin)
    with pytest.raises(builtin, match="what happened"):
        raise kind("what happened")


def test_the_nearest_names_are_those_of_difflib():
    known = ["blocks.0.resid_post", "blocks.0.resid_pre", "embed", "logits"]
    expected = difflib.get_close_matches("resid_post", known, n=3, cutoff=0.0)
    assert errors.nearest("resid_post", known) == ", ".join(repr(name) for name in expected)
    assert errors.nearest("x", []) == "(there are none)"
    assert errors.nearest("a", ["a", "a"]) == "'a'"


def test_a_missing_package_names_its_extra():
    errors.require("json", "hf", "reading")
    with pytest.raises(errors.MissingExtraError) as caught:
        errors.require("no_such_package.part", "knn", "the neighbor index")
    assert str(caught.value) == (
        "the neighbor index needs the package 'no_such_package.part', which is not installed. Run: pip install 'inscape[knn]'"
    )
