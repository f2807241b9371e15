"""Whether what is said of features tells when they are active: detection and fuzzing, with any explainer and any judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inscape.dictionaries.intervals import mean_row
from inscape.dictionaries.reading.features import Example, Feature, Features
from inscape.dictionaries.reading.rules import Rule
from inscape.errors import DegenerateInputError, DictionaryError
from inscape.results import Result

CHANCE = 0.5
# Passages of a side from which on a score says anything.
_FEWEST = 2
TASKS = ("detection", "fuzzing")


@dataclass(frozen=True)
class Passage:
    """What a judge sees: words, and which of them are marked; nothing tells whether the feature is active.

    Attributes:
        words: the tokens of the passage as plain text.
        marked: places of marked words, none in detection.
        begins: whether the passage starts where its text starts.
        ends: whether it ends where its text ends.

    Example:
        >>> Passage((" Good", " Romeo", ":"), marked=(2,)).text
        ' Good Romeo<<:>>'
    """

    words: tuple[str, ...]
    marked: tuple[int, ...] = ()
    begins: bool = False
    ends: bool = False

    @property
    def text(self) -> str:
        """The passage as it reads, marked words between << and >>."""
        return "".join(f"<<{word}>>" if place in self.marked else word for place, word in enumerate(self.words))


Explain = Callable[[Feature], Any]
Judge = Callable[[Any, Sequence[Passage]], Sequence[Any]]


def interpretability(
    features: Features, which: Any = None, *, explain: Explain | None = None, judge: Judge | None = None, seed: int = 0
) -> Result:
    """How well explanations of features tell active from silent passages, for passages that the explainer did not see.

    `explain` is given a feature that shows its largest and quantile examples. `judge` is then given its explanation and passages in a
    shuffled order, half of them from the feature's random examples, half from others: in **detection** random passages in which the
    feature is silent, to be told from those in which it is active; in **fuzzing** passages in which it is active, with either its active
    words marked or as many others. Always answering alike, or guessing, scores 0.5.

    Args:
        features: what `dictionary.features(...)` gave.
        which: numbers of the features to score; default all that are active.
        explain: from a `Feature` to an explanation of any type. Default: the automatic description, from statistics of words.
        judge: from an explanation and passages to one answer each: true or a probability above 0.5 for "active" (in fuzzing, "marked
            rightly"). Default: looks up the words of the automatic description.
        seed: of the order of passages and of the words that are marked wrongly.

    Returns:
        A `Result` with `detection` and `fuzzing`, the mean over features with its interval (features left out in groups) beside chance;
        `result.arrays` holds "feature" and for both tasks the score of each feature with its 95 % interval (Wilson's).

    Raises:
        DictionaryError: a judge of one's own without an explainer that it understands, or one that gives other than one answer each.
        DegenerateInputError: no feature has two random examples and two silent passages.

    Example:
        >>> interpretability(dictionary.features(view)).unique("measure")    # doctest: +SKIP
        ['detection', 'fuzzing']
    """
    if (explain is None) != (judge is None):
        raise DictionaryError("explain= and judge= belong together: the judge must understand what the explainer says")
    numbers = features.table["feature"].to_pylist() if which is None else [int(number) for number in which]
    scores: dict[str, list[tuple[float, int]]] = {task: [] for task in TASKS}
    scored: list[int] = []
    rules = features.rules if explain is None else None
    for number in numbers:
        feature = features[number]
        held = _held_out(feature.examples["random"], feature.examples["silent"], [seed, number])
        if held is None:
            continue
        if rules is not None:
            explanation: Any = rules[number]
        else:
            assert explain is not None
            explanation = explain(_shown(feature))
        scored.append(number)
        for task in TASKS:
            scores[task].append(_judged(judge or look_up, explanation, *held[task], number, task))
    if not scored:
        raise DegenerateInputError(
            f"none of {len(numbers)} features has {_FEWEST} random examples and {_FEWEST} silent passages; give more rows"
        )
    shared = {"system": features.settings["system"], "site": features.settings["site"], "label": features.settings["dictionary"]}
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {"feature": np.array(scored)}
    for task in TASKS:
        values = np.array([value for value, _ in scores[task]])
        reach = np.array([wilson(value, count) for value, count in scores[task]])
        arrays |= {task: values, f"{task}_low": reach[:, 0], f"{task}_high": reach[:, 1]}
        known = values[~np.isnan(values)]
        if not len(known):
            reason = "in every passage all words are active, so none can be marked wrongly"
            rows.append({**shared, "measure": task, "status": "degenerate", "reason": reason})
            continue
        rows.append({**shared, **mean_row(task, known, bounds=(0, 1), seed=seed), "null_mean": CHANCE, "n": len(known)})
    told = "automatic descriptions" if explain is None else getattr(explain, "__name__", type(explain).__name__)
    settings = {"verb": "dictionaries.interpretability", "explain": told, "seed": seed, "features": len(numbers), "scored": len(scored)}
    return Result(rows, settings=settings, arrays=arrays)


def look_up(explanation: Rule, passages: Sequence[Passage]) -> list[bool]:
    """The offline judge: whether the words of a rule occur; in fuzzing, whether they are most of those that are marked."""
    found: list[bool] = []
    for passage in passages:
        marks = explanation.marks(passage.words, passage.begins, passage.ends)
        if passage.marked:
            found.append(2 * sum(marks[place] for place in passage.marked) > len(passage.marked))
        else:
            found.append(any(marks))
    return found


def offline_scores(features: Features, rules: Sequence[Rule], seed: int) -> dict[str, np.ndarray]:
    """Detection and fuzzing of the rules, [m] each; NaN for features with too few examples."""
    found = {task: np.full(len(features), np.nan) for task in TASKS}
    for place, rule in enumerate(rules):
        held = _held_out(features.passages(place, "random"), features.passages(place, "silent"), [seed, place])
        if held is not None:
            for task in TASKS:
                found[task][place] = _judged(look_up, rule, *held[task], place, task)[0]
    return found


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` answers."""
    if count == 0 or np.isnan(share):
        return np.nan, np.nan
    z = 1.959963984540054
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))


def _shown(feature: Feature) -> Feature:
    """What an explainer may see: nothing from which it is judged."""
    examples = {kind: feature.examples[kind] for kind in ("top", "quantile")}
    facts = {name: value for name, value in feature.facts.items() if name not in TASKS}
    return Feature(feature.index, facts, examples, feature.where)


def _held_out(active: Sequence[Example], silent: Sequence[Example], seed: list[int]) -> dict[str, tuple[list[Passage], list[bool]]] | None:
    """Passages and true answers of both tasks, equally many of both sides, in a shuffled order."""
    count = min(len(active), len(silent))
    if count < _FEWEST:
        return None
    rng = np.random.default_rng(seed)
    detection = [(_plain(one), True) for one in active[:count]] + [(_plain(one), False) for one in silent[:count]]
    # In a passage that is active throughout nothing can be marked wrongly.
    mixed = [one for one in active if 0 < np.count_nonzero(one.activations) < len(one.words)]
    fuzzing = [(_marked(one, rng, place % 2 == 0), place % 2 == 0) for place, one in enumerate(mixed[: len(mixed) // 2 * 2])]
    found: dict[str, tuple[list[Passage], list[bool]]] = {}
    for task, pairs in (("detection", detection), ("fuzzing", fuzzing)):
        order = rng.permutation(len(pairs))
        found[task] = [pairs[i][0] for i in order], [pairs[i][1] for i in order]
    return found


def _plain(example: Example) -> Passage:
    return Passage(example.words, (), example.begins, example.ends)


def _marked(example: Example, rng: np.random.Generator, rightly: bool) -> Passage:
    values = np.asarray(example.activations)
    active, rest = np.flatnonzero(values), np.flatnonzero(values == 0)
    places = active if rightly else np.sort(rng.choice(rest, min(len(active), len(rest)), replace=False))
    return Passage(example.words, tuple(int(place) for place in places), example.begins, example.ends)


def _judged(judge: Judge, explanation: Any, passages: list[Passage], truth: list[bool], number: int, task: str) -> tuple[float, int]:
    """Balanced accuracy of the answers, which is the accuracy because both sides are equally many; and their number."""
    if not passages:
        return float("nan"), 0
    answers = judge(explanation, passages)
    if len(answers) != len(passages):
        raise DictionaryError(f"the judge gave {len(answers)} answers to {len(passages)} passages ({task} of feature {number})")
    right = [(float(answer) > CHANCE) == true for answer, true in zip(answers, truth, strict=True)]
    return float(np.mean(right)), len(right)
