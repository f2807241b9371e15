"""Chat messages through the tokenizer's own template, and where each message's words stand in the text that it makes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inscape.errors import StimuliError, require

# Whom a message may come from; templates may know more, which then are roles as well.
ROLES = ("system", "developer", "user", "assistant", "tool")
# The role of what the template itself adds: headers, separators, the prompt that asks for an answer.
TEMPLATE = "template"

# What the rendering is told by us, not by the caller.
_OURS = ("conversation", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Stands in for a message's text: an em space on both sides shows whether the template trims, private characters occur nowhere else.
_EDGE = "\u2003"
_STAND_IN = re.compile(f"({_EDGE}?)\ue000(\\d+)\ue001({_EDGE}?)")

Message = dict[str, Any]
Span = tuple[int, int, int]


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages with roles."""
    if not isinstance(value, (list, tuple)) and not (isinstance(value, np.ndarray) and value.dtype == object):
        return False
    return len(value) > 0 and all(isinstance(message, Mapping) and "role" in message for message in value)


def read_conversation(value: Any, position: int) -> list[Message]:
    """The messages of one stimulus with texts as contents; lists of text parts are joined, entries without a value left out.

    Raises:
        StimuliError: it is no list of messages, or one of them holds something other than text.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise StimuliError(f"the conversation at position {position} is a text that is no JSON ({error}): {value[:60]!r}") from error
    if not is_conversation(value):
        raise StimuliError(
            f"the conversation at position {position} is {str(value)[:60]!r}; expected a list of messages, as in "
            "[{'role': 'user', 'content': 'Hello'}]"
        )
    return [_message(message, f"message {i} of the conversation at position {position}") for i, message in enumerate(value)]


def _message(given: Mapping[str, Any], where: str) -> Message:
    message: Message = {str(key): value for key, value in given.items() if value is not None}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise StimuliError(f"{where} has the role {role!r}; expected one of {', '.join(map(repr, ROLES))}, or what the template knows")
    if content is None:
        if "tool_calls" not in message:
            raise StimuliError(f"{where} (role {role!r}) has no content; give it a text, or leave the message out")
        return message
    if isinstance(content, (list, tuple, np.ndarray)):
        content = "".join(_text_part(part, where) for part in content)
    if not isinstance(content, str):
        raise StimuliError(f"{where} has a content of type {type(content).__name__} ({str(content)[:40]!r}); expected a text or text parts")
    return {**message, "content": content}


def _text_part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise StimuliError(f"{where} holds a part of kind {kind!r}; a chat is read as text, so only text parts can be given")


class Unlocated(Exception):  # noqa: N818  (an answer, not a failure: roles stay unknown and the reason is told)
    """Why the messages cannot be found in the rendered text."""


class ChatTemplate:
    """A tokenizer's chat template with its options: renders conversations, and finds their messages in what it rendered.

    Args:
        tokenizer: the model's tokenizer.
        options: arguments of `apply_chat_template`, such as `add_generation_prompt`, `tools`, or whatever the template reads.

    Raises:
        StimuliError: there is no template, or an option is not for the template.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any]) -> None:
        if tokenizer is None or not hasattr(tokenizer, "apply_chat_template"):
            raise StimuliError("the stimuli are chat messages and the model has no tokenizer with a template; load it with tokenizer=...")
        require("jinja2", "hf", "rendering a chat template")
        wrong = [name for name in _OURS if name in options]
        if wrong:
            raise StimuliError(
                f"template={{{wrong[0]!r}: …}} is not for the template; lengths and padding are arguments of the capture, and the "
                "rendering is tokenized as it is"
            )
        self.tokenizer = tokenizer
        self.options = dict(options)
        if self.options.get("tools"):
            self.options["tools"] = [_schema(tool) for tool in self.options["tools"]]
        try:
            self.source = str(tokenizer.get_chat_template(options.get("chat_template"), self.options.get("tools")))
        except ValueError as error:
            raise StimuliError(
                f"{type(tokenizer).__name__} has no chat template for these messages ({str(error).splitlines()[0][:120]}). Give one with "
                "Stimuli(..., template={'chat_template': '…'}), set tokenizer.chat_template, or render the messages and pass texts"
            ) from error
        # A prompt to continue the last message and generation marks exclude each other in transformers.
        self.marked = bool(_GENERATION.search(self.source)) and not self.options.get("continue_final_message")

    def describe(self) -> dict[str, Any]:
        """What the manifest records: options, and a hash of the template."""
        plain = {name: value for name, value in self.options.items() if name != "chat_template"}
        return {"sha256": hashlib.sha256(self.source.encode()).hexdigest(), "options": json.loads(json.dumps(plain, default=str))}

    def render(self, messages: Sequence[Message], name: str, **changed: Any) -> str:
        """The text of a conversation.

        Raises:
            StimuliError: the template refuses it; `name` tells which stimulus it is.
        """
        try:
            return self.tokenizer.apply_chat_template(list(messages), tokenize=False, **{**self.options, **changed})
        except Exception as error:  # a template is a program of its own and raises what it likes
            raise StimuliError(f"the chat template cannot render stimulus {name!r}: {type(error).__name__}: {error}") from error

    def written(self, messages: Sequence[Message], ids: Sequence[int]) -> np.ndarray:
        """Which tokens the template's `{% generation %}` marks give to the assistant.

        Raises:
            Unlocated: the tokenizer cannot tell.
        """
        try:
            made = self.tokenizer.apply_chat_template(
                list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **self.options
            )
        except Exception as error:
            raise Unlocated(f"its generation marks cannot be read ({type(error).__name__}: {error})") from error
        if list(made["input_ids"]) != list(ids):
            raise Unlocated("its generation marks belong to other tokens than the text has")
        return np.asarray(made["assistant_masks"], bool)

    def locate(self, messages: Sequence[Message], text: str, name: str) -> list[Span]:
        """(start, stop, message) in characters of the rendered text: each message's content, and the whole turn of one that calls tools.

        Contents are found by rendering the conversation once more with a stand-in for each of them: the rest must come out the same,
        character for character. The turn of a tool call is what its rendering adds to that of the messages before it.

        Raises:
            Unlocated: the text cannot be told from the template's own.
        """
        stands = [i for i, message in enumerate(messages) if message.get("content")]
        replaced = [{**m, "content": f"{_EDGE}\ue000{i}\ue001{_EDGE}"} if i in stands else m for i, m in enumerate(messages)]
        try:
            pieces = _STAND_IN.split(self.render(replaced, name))
        except StimuliError as error:
            raise Unlocated(f"the template does not take other contents: {error}") from error
        spans, at = dict[int, Span](), 0
        if not text.startswith(pieces[0]):
            raise Unlocated("what the template puts at the beginning depends on what the messages say")
        for scaffold, left, number, right, behind in zip(*(pieces[i::4] for i in range(4)), pieces[4::4], strict=False):
            index, start = int(number), at + len(scaffold)
            if index in spans:
                raise Unlocated(f"the template shows message {index} twice")
            last = len(spans) == len(pieces) // 4 - 1
            for shown in _shown(str(messages[index]["content"]), bool(left), bool(right)):
                rest = text[start + len(shown) :]
                if text.startswith(shown, start) and (rest == behind if last else rest.startswith(behind)):
                    at = start + len(shown)
                    break
            else:
                raise Unlocated(f"what the template makes of message {index}, or puts behind it, depends on what the messages say")
            spans[index] = (start, at, index)
        for i, message in enumerate(messages):
            if message.get("tool_calls"):
                spans[i] = (*self._turn(messages, i, text, name), i)
        return sorted(spans.values())

    def _turn(self, messages: Sequence[Message], i: int, text: str, name: str) -> tuple[int, int]:
        """Where the turn of message i stands, behind the header that asks for it, by the renderings of two beginnings."""
        last = i == len(messages) - 1
        try:
            before = self.render(messages[:i], name, add_generation_prompt=True, continue_final_message=False) if i else ""
            after = text if last and not self.options.get("add_generation_prompt") else ""
            after = after or self.render(messages[: i + 1], name, add_generation_prompt=False, continue_final_message=False)
        except StimuliError as error:
            raise Unlocated(f"the template does not render the beginning of a conversation: {error}") from error
        if not (text.startswith(before) and text.startswith(after) and len(before) <= len(after)):
            raise Unlocated(
                f"the template renders the messages up to {i}, which calls a tool, in another way when others follow "
                "(it is not prefix-stable)"
            )
        return len(before), len(after)


def _shown(content: str, left: bool, right: bool) -> list[str]:
    """What a template may show of a content: the whole, or what it leaves when it trims white space (or newlines alone) from its ends."""
    kept = content if left else content.lstrip()
    kept = kept if right else kept.rstrip()
    return list(dict.fromkeys([kept, kept.lstrip("\n"), kept.rstrip("\n"), kept.strip("\n")]))


def token_span(tokenizer: Any, text: str, ids: Sequence[int], offsets: np.ndarray | None, span: tuple[int, int]) -> slice:
    """The tokens that hold a character of [start, stop): by their offsets, or by the ids of both beginnings where there are none.

    Raises:
        Unlocated: the tokenizer gives no offsets, and splits a beginning of the text in another way than the whole.
    """
    start, stop = span
    if offsets is not None:
        inside = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start) & (offsets[:, 1] > offsets[:, 0]))
        return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
    if start == stop:
        return slice(0, 0)
    ends: list[int] = []
    for end in span:
        head = list(tokenizer(text[:end], add_special_tokens=False)["input_ids"]) if end else []
        if head != list(ids[: len(head)]):
            raise Unlocated(
                f"{type(tokenizer).__name__} gives no character offsets (it is a slow tokenizer), and splits the text up to character "
                f"{end} in another way than the whole"
            )
        ends.append(len(head))
    return slice(*ends)


def _schema(tool: Any) -> Any:
    if not callable(tool):
        return tool
    from transformers.utils.chat_template_utils import get_json_schema

    return get_json_schema(tool)
