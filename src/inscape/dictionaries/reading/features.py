"""`Features`: what is known of every feature of a dictionary, and `Feature`, one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inscape.dictionaries.reading.gathering import KINDS
from inscape.dictionaries.reading.rules import Rule
from inscape.errors import DictionaryError
from inscape.results import Result


@dataclass(frozen=True)
class Example:
    """A passage in which a feature is active, or silent.

    Attributes:
        kind: "top" (largest activations), "quantile" (from all strengths alike), "random" (uniformly drawn among active rows) or "silent".
        words: its tokens as plain text.
        activations: how strongly the feature is active at each.
        center: the token for which the passage was chosen.
        stimulus: the id of the stimulus.
        position: the place of the center in it.
        begins: whether the passage starts where its text starts.
        ends: whether it ends where its text ends.
    """

    kind: str
    words: tuple[str, ...]
    activations: tuple[float, ...]
    center: int
    stimulus: str
    position: int
    begins: bool = False
    ends: bool = False

    @property
    def activation(self) -> float:
        """The activation at the center."""
        return self.activations[self.center] if self.activations else 0.0

    @property
    def text(self) -> str:
        """The passage as it reads."""
        return "".join(self.words)


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature of a dictionary; shows itself in a notebook.

    Attributes:
        index: its number.
        facts: what is known of it: its row of `Features.table`, or the little that its direction tells.
        examples: passages by kind.
        where: the dictionary, for people.
        hint: what to do to know more, where more can be known.

    Example:
        >>> dictionary[3].index
        3
    """

    index: int
    facts: Mapping[str, Any]
    examples: Mapping[str, tuple[Example, ...]]
    where: str = ""
    hint: str = ""

    @property
    def description(self) -> str | None:
        """What it is active on, in words; None before `dictionary.features(...)` was asked."""
        return self.facts.get("description")

    @property
    def density(self) -> float | None:
        """The share of rows in which it is active."""
        return self.facts.get("density")

    @property
    def neighbors(self) -> list[tuple[int, float]]:
        """Other features whose directions have the largest cosines with its own."""
        return _pairs(self.facts, "neighbors", "neighbor_cosines")

    @property
    def partners(self) -> list[tuple[int, float]]:
        """Other features that are active in the same rows, by the phi coefficient."""
        return _pairs(self.facts, "partners", "partner_phi")

    @property
    def promoted(self) -> list[tuple[str, float]]:
        """Tokens that its direction makes more likely by itself."""
        return _pairs(self.facts, "promoted", "promoted_logits")

    @property
    def suppressed(self) -> list[tuple[str, float]]:
        """Tokens that its direction makes less likely by itself."""
        return _pairs(self.facts, "suppressed", "suppressed_logits")

    @property
    def labels(self) -> list[tuple[str, float]]:
        """Columns of the rows that go with it, by Pearson's correlation with its activation."""
        return _pairs(self.facts, "labels", "label_correlations")

    def __repr__(self) -> str:
        from inscape.dictionaries.reading.card import feature_text

        return feature_text(self)

    def _repr_html_(self) -> str:
        from inscape.dictionaries.reading.card import feature_card

        return feature_card(self)


def _pairs(facts: Mapping[str, Any], names: str, values: str) -> list[Any]:
    return list(zip(facts.get(names) or (), facts.get(values) or (), strict=True))


class Features:
    """What each feature of a dictionary is active on, as `Dictionary.features` found it; `features[i]` is one of them.

    Attributes:
        table: one row for each feature: description, density, largest activation, neighbors, partners, logits, labels, scores.
        arrays: examples as numbers: `rows`, `windows` and `activations` [m, 3, examples(, width)] for the kinds "top", "quantile" and
            "random", `background` [contexts, width] and `silent` [m, examples].
        words: what the numbers in `windows` and `background` stand for.
        settings: the dictionary, the rows, seed and sizes.
        stimuli: ids of the stimuli from which the examples are.
        rules: by feature number, what the automatic description says, as conditions on words.

    Example:
        >>> features = dictionary.features(X)
        >>> len(features) == dictionary.m
        True
    """

    kind = "features"

    def __init__(
        self,
        table: Any,
        arrays: Mapping[str, np.ndarray],
        words: Sequence[str],
        settings: Mapping[str, Any],
        stimuli: Sequence[str] = (),
        rules: Mapping[int, Rule] | None = None,
    ) -> None:
        self.table = table
        self.arrays = dict(arrays)
        self.words = list(words)
        self.settings = dict(settings)
        self.stimuli = list(stimuli)
        self.rules = dict(rules or {})
        self._places = {int(number): place for place, number in enumerate(table["feature"].to_pylist())}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Feature]:
        return (self._at(place) for place in range(len(self)))

    def __getitem__(self, index: int) -> Feature:
        number = index + self.settings["m"] if index < 0 else index
        if number not in self._places:
            chosen = f"; {len(self)} of them are selected" if len(self) < self.settings["m"] else ""
            raise IndexError(
                f"there are {self.settings['m']} features (0 to {self.settings['m'] - 1}){chosen}; there is no feature {index}"
            )
        return self._at(self._places[number])

    def column(self, name: str) -> np.ndarray:
        """A column of numbers of the table, such as "density", in the order of the features."""
        if name not in self.table.column_names:
            raise DictionaryError(f"there is no column {name!r}; there are {', '.join(self.table.column_names)}")
        return self.table[name].to_numpy()

    def frame(self) -> Any:
        """The table as a pandas `DataFrame` if pandas is installed, else as the Arrow table."""
        from importlib.util import find_spec

        return self.table.to_pandas() if find_spec("pandas") is not None else self.table

    def select(self, features: Any) -> Features:
        """Only some features, in the given order: for a report on these alone.

        Args:
            features: their numbers.
        """
        import pyarrow as pa

        wanted = [int(number) for number in features]
        for number in wanted:
            if number not in self._places:
                raise IndexError(f"there is no feature {number} among these {len(self)}")
        at = np.array([self._places[number] for number in wanted], np.int64)
        arrays = {name: array if name == "background" else array[at] for name, array in self.arrays.items()}
        return Features(self.table.take(pa.array(at)), arrays, self.words, self.settings, self.stimuli, self.rules)

    def find(self, text: str) -> Features:
        """The features whose description has this text in it, the best told first.

        Example:
            >>> dictionary.features(X).find("no such description")
            Features(0 of 16 features of TopK(width=16, k=2))
        """
        told, scores = self.table["description"].to_pylist(), self.column("detection")
        places = [place for place, one in enumerate(told) if text.lower() in (one or "").lower()]
        places.sort(key=lambda place: -np.nan_to_num(scores[place], nan=-1.0))
        return self.select(self.table["feature"].to_numpy()[places])

    def described(self, descriptions: Mapping[int, str]) -> Features:
        """The same with descriptions of your own (a language model's, say) in the place of the automatic ones.

        Args:
            descriptions: text by feature number.
        """
        import pyarrow as pa

        numbers, told = list(self._places), self.table["description"].to_pylist()
        unknown = set(descriptions) - set(numbers)
        if unknown:
            raise IndexError(f"there is no feature {min(unknown)} among these {len(self)}")
        fresh = pa.array([descriptions.get(number, old) for number, old in zip(numbers, told, strict=True)], pa.string())
        table = self.table.set_column(self.table.column_names.index("description"), "description", fresh)
        return Features(table, self.arrays, self.words, self.settings, self.stimuli, self.rules)

    def passages(self, place: int, kind: str) -> tuple[Example, ...]:
        """The examples of one kind of the feature in a row of the table.

        Args:
            place: the row; the number of the feature, unless only some are selected.
            kind: "top", "quantile", "random" or "silent".
        """
        return self._silent(place) if kind == "silent" else self._examples(place, KINDS.index(kind))

    @property
    def result(self) -> Result:
        """The dictionary's features in a few numbers: how many are active at all, how often, and how well descriptions tell."""
        from inscape.dictionaries.reading.overview import overview

        return overview(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes `features.json`, `features.parquet` and `features.safetensors` into a folder."""
        from inscape.dictionaries.reading.keeping import save

        return save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Features:
        """Reads what `save` wrote.

        Raises:
            DictionaryError: the folder holds no features, or those of a newer format.
            StoreCorruptError: a file of it is missing or damaged.
        """
        from inscape.dictionaries.reading.keeping import load

        return load(path)

    def __repr__(self) -> str:
        return f"Features({len(self)} of {self.settings['m']} features of {self.settings['dictionary']})"

    def _repr_html_(self) -> str:
        from inscape.dictionaries.reading.card import features_card

        return features_card(self)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _at(self, place: int) -> Feature:
        facts = self.table.slice(place, 1).to_pylist()[0]
        examples = {kind: self.passages(place, kind) for kind in (*KINDS, "silent")}
        return Feature(facts["feature"], facts, examples, where=self.settings["dictionary"])

    def _examples(self, place: int, number: int) -> tuple[Example, ...]:
        arrays = self.arrays
        found: list[Example] = []
        for slot in np.flatnonzero(arrays["rows"][place, number] >= 0):
            codes, values = arrays["windows"][place, number, slot], arrays["activations"][place, number, slot]
            about = int(arrays["stimulus"][place, number, slot]), int(arrays["position"][place, number, slot])
            found.append(self._example(KINDS[number], codes, values, about))
        return tuple(found)

    def _silent(self, place: int) -> tuple[Example, ...]:
        found: list[Example] = []
        for context in self.arrays["silent"][place]:
            if context >= 0:
                codes = self.arrays["background"][context]
                found.append(self._example("silent", codes, np.zeros(len(codes), np.float32), (-1, -1)))
        return tuple(found)

    def _example(self, kind: str, codes: np.ndarray, values: np.ndarray, about: tuple[int, int]) -> Example:
        inside = np.flatnonzero(codes >= 0)
        words = tuple(self.words[code] for code in codes[inside])
        center = int(np.searchsorted(inside, self.settings["context"][0]))
        # Outside of the text is −1; what was merely not kept would be inside.
        begins, ends = bool(codes[0] < 0), bool(codes[-1] < 0)
        stimulus, position = about
        name = self.stimuli[stimulus] if 0 <= stimulus < len(self.stimuli) else ""
        return Example(kind, words, tuple(values[inside].tolist()), center, name, position, begins, ends)
