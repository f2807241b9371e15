"""What a model is shown: texts, token ids, images, sounds or plain arrays, one row per stimulus, with the user's columns."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.capturing.chat import is_conversation, read_conversation
from inscape.capturing.cursors import cursor_of
from inscape.capturing.media import file_kind, is_media, is_picture, media_digest, read_image, read_sound
from inscape.capturing.tables import TABLE_SUFFIXES, Columns, content_column, id_column, kind_of, metadata, read_table, table_columns
from inscape.errors import StimuliError, nearest

KINDS = ("text", "tokens", "chat", "image", "sound", "array")


class Stimuli:
    """Stimuli with ids and columns; rows with the same id are repeats of one stimulus.

    Takes a list of texts (or of conversations, token-id lists, arrays, Pillow pictures, or paths of images and sounds), a table (pandas,
    Arrow, dict of lists, list of dicts, or the path of a Parquet, CSV, TSV, JSONL or text file), or an array [n, ...] whose rows are
    stimuli. One text, one picture or one conversation alone is one stimulus.

    Args:
        data: the stimuli, in any of these forms.
        column: for a table, the column that holds the stimulus; default: "text", "input_ids", "messages", "image", "audio" or the only
            candidate.
        ids: the ids as a list, or the name of a column; default: the column "stimulus" or "id", else the position "0", "1", ….
        kind: one of "text", "tokens", "chat", "image", "sound", "array"; default: judged from the values. A chat is a list of messages
            `{"role": …, "content": …}`; one such list is one stimulus.
        sampling_rate: of sounds given as arrays, in Hz; a column "sampling_rate" may give one per stimulus.
        template: for chats, arguments of the tokenizer's `apply_chat_template`, such as `{"add_generation_prompt": True}`.
        start: for a piece of something longer, the number of its first stimulus there, from which the default ids count.

    Raises:
        StimuliError: nothing usable: no stimuli, an empty text, mixed kinds, a file that is missing, a column that is not there.

    Example:
        >>> stimuli = Stimuli({"text": ["A cat.", "A dog."], "animal": ["cat", "dog"]})
        >>> len(stimuli), stimuli.kind, stimuli.ids
        (2, 'text', ['0', '1'])

    Attributes:
        kind: what the stimuli are.
        ids: one per presentation.
        single: one prompt was given and not a list of them, so all of its tokens are of interest.
        content: the name of the column that holds the stimuli, where they came in one.
        table: one row per stimulus with the user's columns.
    """

    def __init__(
        self,
        data: Any,
        *,
        column: str | None = None,
        ids: Sequence[Any] | str | None = None,
        kind: str | None = None,
        sampling_rate: int | None = None,
        template: Mapping[str, Any] | None = None,
        start: int | None = None,
    ) -> None:
        self.single = start is None and _is_single(data)
        columns, values = _read([data] if self.single else data, column)
        if len(values) == 0:
            raise StimuliError("there are no stimuli (the input is empty); give at least one")
        if kind is not None and kind not in KINDS:
            raise StimuliError(f"kind={kind!r} is unknown; nearest: {nearest(kind, KINDS)}")
        name = next((name for name, held in columns.items() if held is values), None)
        self.kind = kind or (_array_kind(values) if not isinstance(values, list) else kind_of(values, name))
        if template is not None and self.kind != "chat":
            raise StimuliError(f"template={dict(template)!r} is for chat messages; the stimuli are of kind {self.kind!r}")
        self.template: dict[str, Any] = dict(template or {})
        if self.kind == "chat":
            values = [read_conversation(value, position) for position, value in enumerate(values)]
            # As text the messages keep their keys whatever other conversations have, and can be read again.
            columns = {**columns, name or "messages": [json.dumps(value, ensure_ascii=False, default=str) for value in values]}
        self.sampling_rate = sampling_rate
        self.content = name
        self._columns = columns
        self._values: Any = values
        _check_values(values, self.kind)
        self.ids = _ids(columns, ids, len(values), start or 0)
        self._index(metadata(columns, len(values)))

    @classmethod
    def of(cls, data: Any) -> Stimuli:
        """The stimuli themselves when `data` already is a `Stimuli`, else `Stimuli(data)`."""
        return data if isinstance(data, cls) else cls(data)

    @classmethod
    def from_episodes(
        cls, policy: Any, env: Any, *, episodes: int = 10, seed: int = 0, steps: int = 1000, by: str | None = None
    ) -> Stimuli:
        """What a policy sees while it acts in an environment: its observations, with the columns episode, step, action, reward, done.

        Args:
            policy: a module that maps observations [b, …] to a score per action (the highest is taken), a function of one observation that
                returns an action, or an object with `act(observation, state) -> (action, state)`, whose first state is `None`.
            env: `reset(seed=…)` gives an observation (or a pair with an info); `step(action)` gives observation, reward, done (or
                terminated and truncated) and perhaps an info, as Gymnasium's environments do.
            episodes: how many.
            seed: episode i is reset with `seed + i`; a policy that draws its actions draws the same ones again.
            steps: an episode that lasts longer is cut there; its last `done` is then false.
            by: "step" gives one stimulus per observation, "episode" one sequence [t, …] per episode, whose rows are the steps; default:
                "episode" where the policy keeps a state, since what it does then hangs on the steps before.

        Example:
            >>> from inscape.zoo import TMaze
            >>> Stimuli.from_episodes(lambda observation: 0, TMaze(), episodes=1, steps=3).column("step")
            [0, 1, 2]
        """
        from inscape.capturing.episodes import play

        values, columns, ids, kind = play(policy, env, episodes, seed, steps, by)
        return cls({"observation": values, **columns}, column="observation", ids=ids, kind=kind)

    @classmethod
    def stream(
        cls,
        data: Any,
        *,
        column: str | None = None,
        ids: str | None = None,
        kind: str | None = None,
        sampling_rate: int | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> Any:
        """Stimuli that `inscape.capture` reads piece by piece, with what it should know about them; `data` alone is a stream too.

        Args:
            data: a Hugging Face `IterableDataset`, a `DataLoader`, a torch `Dataset`, a generator, a function that returns an iterator, or
                anything that can be iterated over and has no length.
            column: the column that holds the stimulus.
            ids: the column that holds the ids, each of which comes once; default: "stimulus" or "id", else the number in the stream.
            kind: one of "text", "tokens", "chat", "image", "sound", "array"; default: judged from the first piece.
            sampling_rate: of sounds given as arrays, in Hz.
            template: for chats, arguments of the tokenizer's `apply_chat_template`.

        Raises:
            StimuliError: the data is taken as a whole.

        Example:
            >>> texts = Stimuli.stream(({"document": text} for text in ["A cat.", "A dog."]), column="document")
        """
        from inscape.capturing.streams import StimulusStream

        options: dict[str, Any] = {"kind": kind, "sampling_rate": sampling_rate, "template": template}
        return StimulusStream(data, column=column, ids=ids, **options)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        names = ", ".join(name for name in self.table.column_names if name != "stimulus")
        repeats = f", {len(self)} presentations" if self.table.num_rows != len(self) else ""
        return f"Stimuli({self.table.num_rows} of kind {self.kind}{repeats}; columns: {names or 'none'})"

    def __getitem__(self, position: int) -> Any:
        """The stimulus at a position: a text, an id array, an image array, or a wave."""
        value = self._values[position]
        if self.kind == "image":
            return read_image(value)
        if self.kind == "sound":
            return read_sound(value)[0]
        if self.kind == "text":
            return str(value)
        if self.kind == "chat":
            return value
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)

    def rate(self, position: int) -> int | None:
        """The sampling rate of a sound in Hz: its file's, its row's column "sampling_rate", or the one given for all."""
        if "sampling_rate" in self.presented.column_names:
            given = self.presented.column("sampling_rate")[position].as_py()
            if given is not None:
                return int(given)
        value = self._values[position]
        return read_sound(value)[1] if isinstance(value, (str, Path)) or is_media(value) else self.sampling_rate

    def has(self, name: str) -> bool:
        """Whether the user's table has a column of this name."""
        return name in self._columns

    def is_content(self, name: str) -> bool:
        """Whether a column is the one that holds the stimuli."""
        return self._columns.get(name) is self._values

    def first(self, count: int) -> Stimuli:
        """The first `count` of them.

        Raises:
            StimuliError: there would be none.
        """
        if count < 1:
            raise StimuliError(f"limit={count} leaves no stimulus; give 1 or more")
        if count >= len(self):
            return self
        other = copy.copy(self)
        other._columns = {name: values[:count] for name, values in self._columns.items()}
        other._values = (
            other._columns[str(self.content)] if self.content is not None and self.is_content(self.content) else self._values[:count]
        )
        other.ids = self.ids[:count]
        told = self.presented if self.presented.num_columns else pa.table({"stimulus": pa.array(self.ids, pa.string())})
        other._index(told.slice(0, count))
        return other

    def part(self, name: str, *, kind: str | None = None) -> Stimuli:
        """Another column of the user's table as stimuli with the same ids, such as the pictures beside the texts."""
        if name not in self._columns:
            raise StimuliError(f"the stimuli have no column {name!r}; nearest: {nearest(name, self._columns)}")
        kept = {key: values for key, values in self._columns.items() if key in (name, "sampling_rate")}
        return Stimuli(kept, column=name, ids=self.ids, kind=kind, sampling_rate=self.sampling_rate)

    def column(self, name: str) -> list[Any]:
        """A column of the user's table, one value per presentation."""
        if name not in self.presented.column_names:
            raise StimuliError(f"the stimuli have no column {name!r}; nearest: {nearest(name, self.presented.column_names)}")
        return self.presented.column(name).to_pylist()

    def with_columns(self, columns: Mapping[str, pa.Array]) -> Stimuli:
        """The same stimuli with further columns, one value per presentation.

        Raises:
            StimuliError: a column of that name is there already.
        """
        for name in columns:
            if name in self.presented.column_names:
                raise StimuliError(f"the stimuli have a column {name!r} already, which this capture would write; rename it")
        wider = copy.copy(self)
        told = self.presented if self.presented.num_columns else pa.table({"stimulus": pa.array(self.ids, pa.string())})
        for name, values in columns.items():
            told = told.append_column(name, values)
        wider._index(told)
        return wider

    def crossed(self, **columns: Sequence[Any]) -> Stimuli:
        """Each stimulus once for every combination of values, which become columns: an image at several timesteps, for instance.

        The ids stay, so the presentations are repeats of one stimulus, and a column that differs between them belongs to the rows.

        Raises:
            StimuliError: a column is there already, or has no values.

        Example:
            >>> stimuli = Stimuli(["A cat.", "A dog."]).crossed(timestep=[10, 500])
            >>> stimuli.ids, stimuli.column("timestep")
            (['0', '0', '1', '1'], [10, 500, 10, 500])
        """
        for name, values in columns.items():
            if self.has(name) or name in self.presented.column_names:
                raise StimuliError(f"the stimuli have a column {name!r} already; cross them with another name")
            if len(values) == 0:
                raise StimuliError(f"{name}=[] has no value to cross the stimuli with; give one or more")
        combined = [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())]
        shown = [position for position in range(len(self)) for _ in combined]
        told = {name: [values[name] for _ in range(len(self)) for values in combined] for name in columns}
        other = copy.copy(self)
        other.single = False
        other._columns = {**{name: [values[i] for i in shown] for name, values in self._columns.items()}, **told}
        content = next((name for name in self._columns if self.is_content(name)), None)
        other._values = [self._values[position] for position in shown] if content is None else other._columns[content]
        other.ids = [self.ids[position] for position in shown]
        kept = self.presented.take(pa.array(shown)) if self.presented.num_columns else pa.table({"stimulus": pa.array(other.ids)})
        for name, values in told.items():
            kept = kept.append_column(name, pa.array(values))
        other._index(kept)
        return other

    def with_template(self, template: Mapping[str, Any]) -> Stimuli:
        """The same chats under other template options."""
        other = copy.copy(self)
        other.template = dict(template)
        return other

    def digest(self) -> str:
        """A SHA-256 over ids, contents and columns: equal for equal stimuli, so that a capture knows its own store again."""
        digest = hashlib.sha256(self.kind.encode())
        for name, values in [("", self.ids), *((name, self.presented.column(name).to_pylist()) for name in self.presented.column_names)]:
            digest.update(f"\x00{name}\x00{values!r}".encode())
        digest.update(str(self.sampling_rate).encode())
        for value in self._values:
            if is_media(value):
                digest.update(media_digest(value))
            elif self.kind == "chat":
                digest.update(json.dumps(value, sort_keys=True, default=str).encode() + b"\x00")
            elif isinstance(value, (str, Path)) and self.kind in ("image", "sound"):
                digest.update(Path(value).read_bytes() if Path(value).is_file() else b"missing")
            elif isinstance(value, (str, Path)):
                text = str(value).encode()
                digest.update(len(text).to_bytes(8, "little") + text)
            else:
                array = np.ascontiguousarray(np.asarray(value.detach().cpu() if hasattr(value, "detach") else value))
                digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def _index(self, presented: pa.Table) -> None:
        """Finds the repeats: `source` is the row of `table` that a presentation shows, `repeat` counts its showings."""
        first: dict[str, int] = {}
        counts: dict[str, int] = {}
        self.source = np.empty(len(self), np.int64)
        self.repeat = np.empty(len(self), np.int32)
        rows: list[int] = []
        for position, name in enumerate(self.ids):
            if name not in first:
                first[name] = len(rows)
                rows.append(position)
            self.source[position] = first[name]
            self.repeat[position] = counts.get(name, 0)
            counts[name] = counts.get(name, 0) + 1
        keep = [name for name in presented.column_names if name != "stimulus"]
        self.presented = presented.select(keep)
        # A column such as "run" may differ between the showings of one stimulus; it then belongs to rows, not to stimuli.
        self.varying: list[str] = []
        if len(rows) != len(self):
            for name in keep:
                shown = self.presented.column(name).to_pylist()
                if any(shown[i] != shown[rows[self.source[i]]] for i in range(len(self))):
                    self.varying.append(name)
        unique = self.presented.take(pa.array(rows)) if keep else self.presented
        columns = {name: unique.column(name) for name in keep if name not in self.varying}
        self.table = pa.table({"stimulus": pa.array(list(first), pa.string()), **columns})


def _is_single(data: Any) -> bool:
    """Whether the input is one stimulus by itself: a text (and no name of a table), a picture, a conversation."""
    if isinstance(data, str):
        return not data.lower().endswith(TABLE_SUFFIXES)
    if isinstance(data, Path):
        return file_kind(data.name) is not None
    return is_picture(data) or (is_conversation(data) and all("content" in message or "tool_calls" in message for message in data))


def _read(data: Any, column: str | None) -> tuple[Columns, Any]:
    """The columns of the input and its stimuli: a list, or an array whose rows they are."""
    if isinstance(data, (str, Path)):
        if not str(data).lower().endswith(TABLE_SUFFIXES):
            raise StimuliError(f"{str(data)!r} is a path of no known kind; expected a file that ends in {', '.join(TABLE_SUFFIXES)}")
        data = read_table(data)
    cursor = cursor_of(data)
    if cursor is not None:
        data = list(cursor.begin())
    columns = table_columns(data)
    if columns is not None:
        if not any(columns.values()):
            return columns, []
        name = content_column(columns, column)
        return columns, columns[name]
    if column is not None:
        raise StimuliError(f"column={column!r} needs a table; got {type(data).__name__}")
    if isinstance(data, np.ndarray) and data.dtype.kind in "UO":
        data = data.tolist()
    if isinstance(data, np.ndarray) or hasattr(data, "detach"):
        if data.ndim < 2:
            raise StimuliError(f"an array of stimuli has shape {tuple(data.shape)}; expected [n, ...]: one row per stimulus")
        return {}, data
    if not isinstance(data, (list, tuple)):
        if isinstance(data, Sequence) or hasattr(data, "__iter__"):
            data = list(data)
        else:
            raise StimuliError(f"cannot take stimuli from {type(data).__name__}; give a list, a table, a path or an array [n, ...]")
    values = list(data)
    return ({"text": values} if values and all(isinstance(v, (str, Path)) for v in values) else {}), values


def _array_kind(values: Any) -> str:
    dtype = str(values.dtype)
    if dtype.endswith("uint8") and values.ndim in (3, 4):
        return "image"
    integers = "int" in dtype
    return "tokens" if integers and values.ndim == 2 else "array"


def _check_values(values: Any, kind: str) -> None:
    if kind == "text":
        for position, value in enumerate(values):
            if not isinstance(value, (str, Path)):
                raise StimuliError(f"stimulus {position} is {value!r}, of type {type(value).__name__}; expected a text")
            if str(value) == "":
                raise StimuliError(f"the text at position {position} is empty; a model has nothing to read there: drop the row or fill it")
    elif kind == "tokens" and isinstance(values, list):
        for position, value in enumerate(values):
            if len(value) == 0:
                raise StimuliError(f"the list of token ids at position {position} is empty; drop the row or fill it")
    elif kind in ("image", "sound"):
        for value in values:
            if isinstance(value, (str, Path)) and not Path(value).is_file():
                raise StimuliError(f"there is no {kind} file at {str(value)!r}; every path must exist before a capture starts")


def _ids(columns: Columns, ids: Sequence[Any] | str | None, n: int, start: int) -> list[str]:
    if ids is None or isinstance(ids, str):
        name = id_column(columns, ids)
        given: Sequence[Any] = columns[name] if name is not None else range(start, start + n)
    else:
        given = ids
    if len(given) != n:
        raise StimuliError(f"{len(given)} ids were given for {n} stimuli; give one for each")
    if any(value is None for value in given):
        raise StimuliError(f"the id at position {[v is None for v in given].index(True)} is missing; every stimulus needs one")
    return [str(value) for value in given]
