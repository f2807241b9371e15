"""Words, rules made of them, and scores: 1 for what was planted, 1/2 for what is chance."""

from __future__ import annotations

import numpy as np
import pytest

import inscape as ix
from inscape.dictionaries import Passage, interpretability
from inscape.dictionaries.reading.interpretability import wilson
from inscape.dictionaries.reading.rules import Clue, Rule
from inscape.dictionaries.reading.words import class_table, in_class, quoted, readable, special, visible
from inscape.errors import DegenerateInputError, DictionaryError
from tests.unit.dictionaries.token_scene import WORDS, reading, texts, token_view, with_rows


def test_tokens_of_every_tokenizer_read_alike():
    assert readable(["ĠROME", "O", ":", "Ċ", "cafÃ©"]) == [" ROME", "O", ":", "\n", "café"]
    assert readable(["▁the", "cat", "<0x0A>", "</s>"]) == [" the", "cat", "\n", "</s>"]
    assert readable(["[CLS]", "play", "##ing", "."]) == ["[CLS]", " play", "ing", " ."]
    assert readable([" a", "b"]) == [" a", "b"]
    assert special("[CLS]") and special("<|endoftext|>") and not special("[x") and not special("<>")
    assert visible("\n\n") == "⏎⏎" and visible(" ") == "·" and quoted("\n") == "a line break" and quoted(" the") == "‘the’"


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("\n", {"line breaks"}),
        (" ,", {"punctuation"}),
        ("42", {"numbers"}),
        (" ROMEO", {"words in capitals", "words after a space"}),
        ("Romeo", {"capitalized words"}),
        ("ing", {"parts that go on a word"}),
        ("[SEP]", {"special tokens"}),
    ],
)
def test_words_belong_to_the_classes_that_one_would_say(word: str, kinds: set[str]):
    from inscape.dictionaries.reading.words import CLASSES

    table = class_table([word])
    assert {name for name in CLASSES if in_class(word, name)} == kinds
    assert {name for name, member in zip(CLASSES, table[0], strict=True) if member} == kinds and not table[1].any()


def test_a_rule_marks_where_all_its_clues_hold():
    rule = Rule((Clue(0, ("\n",)), Clue(-1, (":", ""))))
    words = ["\n", "A", ":", "\n", "\n"]
    assert rule.marks(words) == [True, False, False, True, False]
    assert rule.marks(words, begins=False) == [False, False, False, True, False]
    assert Rule((Clue(1, kind="punctuation"),)).marks(["a", ",", "b"]) == [True, False, False]
    assert Rule(()).marks(["a"]) == [False]
    assert str(rule) == "a line break after ‘:’ or the start of a text"
    assert str(Rule((Clue(1, ("x", " x", "y")),))) == "what comes before ‘x’ or ‘y’"
    assert str(Rule((Clue(0, tuple("abcdef")),))) == "‘a’, ‘b’, ‘c’, ‘d’ and 2 more"
    assert Rule.of(rule.describe()) == rule


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Codes that are active on token 3; on tokens 4 and 5; on what follows 6; on 7 before 8."""
    ids = texts(150)
    ids[:, 5] = np.where(ids[:, 4] == 7, 8, ids[:, 5])  # so that 7 before 8 is not too rare
    after, before = np.roll(ids, 1, 1), np.roll(ids, -1, 1)
    after[:, 0] = before[:, -1] = -1
    codes = np.stack([ids == 3, np.isin(ids, [4, 5]), after == 6, (ids == 7) & (before == 8)], -1)
    return ids, codes.reshape(-1, 4).astype(np.float32)


def test_what_was_planted_is_described_and_scores_one():
    ids, codes = planted()
    found = reading(np.eye(4)).features(with_rows(token_view(ids), codes))
    assert found[0].description == "‘3’"
    assert found[1].description in ("‘4’ or ‘5’", "‘5’ or ‘4’")
    assert found[2].description == "what follows ‘6’"
    assert found[3].description == "‘7’ before ‘8’"
    scores = interpretability(found)
    for task in ("detection", "fuzzing"):
        np.testing.assert_allclose(scores.arrays[task], 1.0)
        np.testing.assert_allclose(found.column(task), scores.arrays[task])
        assert scores.value(measure=task) == 1.0
    assert scores.unique("null_mean") == [0.5]


def test_chance_scores_one_half():
    rng = np.random.default_rng(5)
    view = with_rows(token_view(texts(200)), (rng.random((4000, 40)) < 0.02).astype(np.float32))
    found = reading(np.eye(40)).features(view, context=(5, 3))
    scores = interpretability(found)
    for task in ("detection", "fuzzing"):
        row = scores.where(measure=task).rows()[0]
        assert row["value"] == pytest.approx(0.5, abs=0.05) and row["low"] <= 0.5 <= row["high"]
    assert scores.arrays["detection"].std() < 0.15


def test_explainers_and_judges_of_ones_own():
    ids, codes = planted()
    found = reading(np.eye(4)).features(with_rows(token_view(ids), codes))
    asked: list[Passage] = []

    def explain(feature: ix.dictionaries.Feature) -> str:
        assert set(feature.examples) == {"top", "quantile"} and "detection" not in feature.facts
        return feature.examples["top"][0].words[feature.examples["top"][0].center]

    def judge(word: str, passages: list[Passage]) -> list[float]:
        asked.extend(passages)
        return [0.9 if (all(p.words[i] == word for i in p.marked) if p.marked else word in p.words) else 0.1 for p in passages]

    scores = interpretability(found, [0, 1], explain=explain, judge=judge)
    assert scores.arrays["feature"].tolist() == [0, 1]
    assert scores.arrays["detection"][0] == 1.0 and 0.6 < scores.arrays["detection"][1] < 1.0
    assert sum(bool(p.marked) for p in asked) == sum(not p.marked for p in asked) // 2
    assert scores.settings["explain"] == "explain"
    always = interpretability(found, explain=explain, judge=lambda said, passages: [True] * len(passages))
    assert always.value(measure="detection") == 0.5 == always.value(measure="fuzzing")
    held = {tuple(one.words) for one in found[0].examples["random"]}
    shown = {tuple(one.words) for kind in ("top", "quantile") for one in found[0].examples[kind]}
    assert not held & shown
    with pytest.raises(DictionaryError, match="belong together"):
        interpretability(found, explain=explain)
    with pytest.raises(DictionaryError, match="1 answers to 24 passages"):
        interpretability(found, explain=explain, judge=lambda said, passages: [True])


def test_intervals_of_a_share():
    # Newcombe 1998, table I: 15 of 148 and 0 of 20.
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert np.isnan(wilson(float("nan"), 0)).all()


def test_features_without_examples_have_no_score():
    view = token_view(texts(2, 4))
    found = reading(np.eye(WORDS)).features(view)
    with pytest.raises(DegenerateInputError, match="give more rows"):
        interpretability(found)
    assert Passage((" Good", " Romeo", ":"), (2,)).text == " Good Romeo<<:>>"
