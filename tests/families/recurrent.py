"""Models that keep a state over steps: recurrent layers, cells called by hand, a recurrent language model, policies in an environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.families.catalog import Family
from tests.families.tokenizer import LENGTHS, VOCABULARY


def sequences(width: int = 3, lengths: tuple[int, ...] = (4, 7, 1, 4, 2)) -> list[np.ndarray]:
    """Random sequences [t, width], not in order of length."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, width)).astype(np.float32) for length in lengths]


def _even() -> list[np.ndarray]:
    return sequences(lengths=(5, 5, 5, 5))


class Stepper(nn.Module):
    """A recurrent network as one writes it oneself: a cell that is called once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.cell = nn.LSTMCell(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            h, c = self.cell(self.embed(x[:, t]), (h, c))
        return self.head(h)


def _language_model() -> nn.Module:
    from inscape.zoo import RecurrentLM

    return RecurrentLM(VOCABULARY, d=16, layers=3)


def _ids() -> list[list[int]]:
    return [[4 + (7 * i + 3 * j) % 40 for j in range(length)] for i, length in enumerate(LENGTHS)]


def _remembering() -> nn.Module:
    from inscape.zoo import RecurrentPolicy

    return RecurrentPolicy(d=8)


def _forgetting() -> nn.Module:
    from inscape.zoo import Policy

    return Policy(d=8)


def _walk(observation: np.ndarray) -> int:
    """Forward, and to the left at the junction."""
    return 1 if observation[2] else 0


def episodes(by: str) -> dict[str, list[Any]]:
    """What is seen on walks through the maze of the zoo, as a table."""
    from inscape.capturing import Stimuli
    from inscape.zoo import TMaze

    seen = Stimuli.from_episodes(_walk, TMaze(length=5), episodes=6, seed=0, by=by)
    told = {name: seen.column(name) for name in ("episode", "step", "action", "reward", "done")}
    return {"observation": [seen[i] for i in range(len(seen))], **told, "id": seen.ids}


def _first(module: nn.Module) -> object:
    return module(torch.from_numpy(sequences()[0])[None])


def _first_time_first(module: nn.Module) -> object:
    return module(torch.from_numpy(sequences()[0])[:, None])


FAMILIES = [
    Family(
        "LSTM",
        lambda: nn.LSTM(3, 5, num_layers=2, batch_first=True),
        sequences,
        paths=("output", "output:out.1.0", "output:out.1.1"),
        sides=(),
        by_hand=_first,
        note="Different lengths are packed. The last hidden and cell states are `output:out.1.0` and `output:out.1.1`.",
    ),
    Family(
        "GRU, time first",
        lambda: nn.GRU(3, 5, bidirectional=True),
        sequences,
        paths=("output", "output:out.1"),
        sides=(),
        by_hand=_first_time_first,
        note="Both directions; sequences are stacked as [t, b, d].",
    ),
    Family(
        "LSTM cell",
        Stepper,
        _even,
        paths=("embed#0", "cell#0", "cell#4", "cell:out.1#4", "head"),
        sides=(),
        by_hand=lambda module: module(torch.from_numpy(_even()[0])[None]),
        note="Every call of the cell is a site: `cell#4` is the hidden state after the fifth step, `cell:out.1#4` the cell state.",
    ),
    Family(
        "recurrent language model",
        _language_model,
        _ids,
        sites=("blocks.1.resid_pre", "blocks.1.resid_post", "final_norm", "logits"),
        paths=("blocks.1.gru",),
        by_hand=lambda module: module(torch.tensor(_ids()[:1])),
        note="`RecurrentLM` of the zoo.",
    ),
    Family(
        "recurrent policy",
        _remembering,
        lambda: episodes("episode"),
        paths=("encoder", "memory", "memory:out.1", "head"),
        sides=(),
        by_hand=lambda module: module(torch.from_numpy(episodes("episode")["observation"][0])[None]),
        note="`RecurrentPolicy` of the zoo in its maze: a stimulus is an episode, rows are its steps.",
    ),
    Family(
        "policy",
        _forgetting,
        lambda: episodes("step"),
        paths=("layers.0", "layers.1", "head"),
        sides=(),
        by_hand=lambda module: module(torch.from_numpy(episodes("step")["observation"][0])[None]),
        note="`Policy` of the zoo in its maze: a stimulus is what it sees at one step.",
    ),
]
