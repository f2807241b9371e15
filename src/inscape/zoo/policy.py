"""A maze that asks for memory, and policies that learn to walk it in seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from inscape.arrays import threads

FORWARD, LEFT, RIGHT = 0, 1, 2


class TMaze:
    """A corridor with a sign at its start and a junction at its end: only who remembers the sign turns to the right side.

    An observation holds four numbers: the sign for left, the sign for right (both only at the start), whether this is the junction, and a
    number that means nothing. The actions are forward, left and right. The right turn gives 1, the wrong one −1, a turn inside the corridor
    −0.1 and nothing else happens. It follows the interface of Gymnasium's environments and needs none of them.

    Args:
        length: steps from the sign to the junction; each episode draws a length between 1 and this.

    Example:
        >>> env = TMaze(length=3)
        >>> observation, _ = env.reset(seed=0)
        >>> observation.shape
        (4,)
    """

    actions = 3
    observed = 4

    def __init__(self, length: int = 4) -> None:
        if length < 1:
            raise ValueError(f"a corridor of length {length} has no junction to walk to; give 1 or more")
        self.length = length
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, int]]:
        """A new corridor; the sign and the length are in the info, too."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.sign = int(self._rng.integers(2))
        self.goal = int(self._rng.integers(1, self.length + 1))
        self.place = 0
        return self._observe(), {"sign": self.sign, "length": self.goal}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, int]]:
        """Observation, reward, whether the episode is over, whether it was cut (never), and an empty info."""
        reward, done = 0.0, False
        if action == FORWARD:
            self.place = min(self.place + 1, self.goal)
        elif self.place < self.goal:
            reward = -0.1
        else:
            reward, done = (1.0 if action == LEFT + self.sign else -1.0), True
        return self._observe(), reward, done, False, {}

    def _observe(self) -> np.ndarray:
        seen = np.zeros(4, np.float32)
        if self.place == 0:
            seen[self.sign] = 1
        seen[2] = self.place == self.goal
        seen[3] = self._rng.normal()
        return seen


class Policy(nn.Module):
    """A policy without memory: two layers from an observation to a score per action.

    Example:
        >>> Policy()(torch.zeros(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(self, observed: int = 4, actions: int = 3, d: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(observed, d), nn.ReLU()), nn.Sequential(nn.Linear(d, d), nn.ReLU())])
        self.head = nn.Linear(d, actions)

    def forward(self, observation: Float[Tensor, "*b o"]) -> Float[Tensor, "*b a"]:
        """The scores of the actions."""
        for layer in self.layers:
            observation = layer(observation)
        return self.head(observation)


class RecurrentPolicy(nn.Module):
    """A policy with a GRU for a memory; it reads whole episodes at once, or acts step by step with `act`.

    Example:
        >>> policy = RecurrentPolicy()
        >>> policy(torch.zeros(5, 7, 4)).shape
        torch.Size([5, 7, 3])
    """

    def __init__(self, observed: int = 4, actions: int = 3, d: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(observed, d), nn.ReLU())
        self.memory = nn.GRU(d, d, batch_first=True)
        self.head = nn.Linear(d, actions)

    def forward(self, observations: Float[Tensor, "b t o"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b t a"]:
        """The scores of the actions at every step; `lengths` are the steps of episodes that are padded at their end."""
        x = self.encoder(observations)
        if lengths is None:
            return self.head(self.memory(x)[0])
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.memory(packed)[0], batch_first=True, total_length=observations.shape[1])
        return self.head(states)

    @torch.no_grad()
    def act(self, observation: np.ndarray, state: Tensor | None = None) -> tuple[int, Tensor]:
        """The best action, and the state to go on with; the first state is `None`."""
        x = self.encoder(torch.as_tensor(observation, dtype=self.head.weight.dtype)[None, None])
        states, after = self.memory(x, state)
        return int(self.head(states[0, -1]).argmax()), after


def train_policy(
    make: Callable[[], nn.Module] = RecurrentPolicy, env: TMaze | None = None, *, updates: int = 150, seed: int = 0, lr: float = 1e-2
) -> nn.Module:
    """Trains a policy by REINFORCE with a baseline, on one thread and the same for the same seed; seconds.

    Args:
        make: builds the policy: `RecurrentPolicy`, `Policy` or your own with the same forward; called once, under the seed.
        env: by default `TMaze()`.
        updates: steps of Adam, each on 64 episodes.
        seed: start weights, mazes and actions.
        lr: learning rate.

    Example:
        >>> train_policy()    # doctest: +SKIP
    """
    env = TMaze() if env is None else env
    with torch.random.fork_rng(devices=[]), threads(1):
        torch.manual_seed(seed)
        policy = make()
        optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
        for update in range(updates):
            mazes = [TMaze(env.length) for _ in range(64)]
            _reinforce(policy, optimizer, mazes, seed * 1_000_000 + update * 64, steps=env.length + 4)
    return policy.eval()


def _reinforce(policy: nn.Module, optimizer: torch.optim.Optimizer, mazes: list[TMaze], first: int, steps: int) -> None:
    """One update on one episode in each maze."""
    now = np.stack([maze.reset(seed=first + i)[0] for i, maze in enumerate(mazes)])
    seen: list[np.ndarray] = []
    chosen: list[Tensor] = []
    rewards = np.zeros((len(mazes), steps), np.float32)
    alive = np.ones((len(mazes), steps), np.float32)
    with torch.no_grad():
        for step in range(steps):
            seen.append(now)
            scores = policy(torch.from_numpy(np.stack(seen, 1)))[:, -1]
            chosen.append(torch.distributions.Categorical(logits=scores).sample())
            after = now.copy()
            for i, maze in enumerate(mazes):
                if alive[i, step]:
                    after[i], rewards[i, step], done, _, _ = maze.step(int(chosen[-1][i]))
                    alive[i, step + 1 :] *= not done
            now = after
    # What is still to come, with a small price on time; the baseline is its mean over the mazes that are not done.
    real = torch.from_numpy(alive)
    returns = torch.from_numpy((rewards - 0.02 * alive)[:, ::-1].cumsum(1)[:, ::-1].copy())
    baseline = (returns * real).sum(0) / real.sum(0).clamp(min=1)
    choice = torch.distributions.Categorical(logits=policy(torch.from_numpy(np.stack(seen, 1))))
    gain = choice.log_prob(torch.stack(chosen, 1)) * (returns - baseline) + 0.02 * choice.entropy()
    optimizer.zero_grad()
    (-(gain * real).sum() / real.sum()).backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
