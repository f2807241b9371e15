"""A policy acting in an environment: what it saw, did and got, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from inscape.errors import StimuliError

# One action from an observation and the policy's state.
Act = Callable[[np.ndarray, Any], tuple[Any, Any]]
Played = tuple[list[np.ndarray], dict[str, list[Any]], list[str], str]


def play(policy: Any, env: Any, episodes: int, seed: int, steps: int, by: str | None) -> Played:
    """The observations, one array per step or per episode, with their columns, ids and kind.

    Raises:
        StimuliError: the policy or the environment does not do what is expected of it.
    """
    if by not in (None, "step", "episode"):
        raise StimuliError(f"by={by!r} is unknown; expected 'step' or 'episode'")
    if episodes < 1 or steps < 1:
        raise StimuliError(f"episodes={episodes} of at most steps={steps} leave nothing to see; give 1 or more of both")
    act = _act_of(policy)
    seen: list[list[np.ndarray]] = []
    told: list[dict[str, list[Any]]] = []
    keeps = False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for episode in range(episodes):
            observations, columns, state = _episode(act, env, seed + episode, steps)
            seen.append(observations)
            told.append(columns)
            keeps = keeps or state is not None
    if (by or ("episode" if keeps else "step")) == "episode":
        sequences = [np.stack(observations) for observations in seen]
        columns = {name: [values[name] for values in told] for name in told[0]}
        return sequences, {"episode": list(range(episodes)), **columns}, [str(i) for i in range(episodes)], "array"
    flat = [observation for observations in seen for observation in observations]
    columns = {name: [value for values in told for value in values[name]] for name in told[0]}
    number = [i for i, observations in enumerate(seen) for _ in observations]
    ids = [f"{i}.{step}" for i, step in zip(number, columns["step"], strict=True)]
    picture = flat[0].dtype == np.uint8 and flat[0].ndim in (2, 3)
    return flat, {"episode": number, **columns}, ids, "image" if picture else "array"


def _episode(act: Act, env: Any, seed: int, steps: int) -> tuple[list[np.ndarray], dict[str, list[Any]], Any]:
    observations: list[np.ndarray] = []
    columns: dict[str, list[Any]] = {"step": [], "action": [], "reward": [], "done": []}
    observation, state = _observed(env.reset(seed=seed)), None
    for step in range(steps):
        action, state = act(observation, state)
        after, reward, done = _after(env.step(action))
        observations.append(observation)
        for name, value in (("step", step), ("action", action), ("reward", float(reward)), ("done", done)):
            columns[name].append(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
        observation = after
        if done:
            break
    return observations, columns, state


def _act_of(policy: Any) -> Act:
    own = getattr(policy, "act", None)
    if callable(own):
        return lambda observation, state: _pair(own(observation, state))
    if isinstance(policy, nn.Module):
        return lambda observation, state: (_greedy(policy, observation), None)
    if callable(policy):
        return lambda observation, state: (policy(observation), None)
    raise StimuliError(
        f"{type(policy).__name__} is no policy: give a module, a function of an observation, or an object with act(observation, state)"
    )


def _pair(made: Any) -> tuple[Any, Any]:
    if not isinstance(made, tuple) or len(made) != 2:
        raise StimuliError(f"act(observation, state) returned {type(made).__name__}; expected a pair (action, state)")
    action, state = made
    return (action.item() if isinstance(action, torch.Tensor) and action.numel() == 1 else _plain(action)), state


def _plain(action: Any) -> Any:
    return action.detach().cpu().numpy() if isinstance(action, torch.Tensor) else action


def _greedy(policy: nn.Module, observation: np.ndarray) -> int:
    parameter = next(policy.parameters(), torch.zeros(0))
    training = policy.training
    policy.eval()
    try:
        scores = policy(torch.from_numpy(observation)[None].to(parameter.device, parameter.dtype))
    finally:
        policy.train(training)
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2 or scores.shape[0] != 1:
        shown = list(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise StimuliError(
            f"{type(policy).__name__} returned {shown} for one observation; expected scores [1, actions]. "
            "Give the policy a method act(observation, state) -> (action, state)"
        )
    return int(scores.argmax())


def _observed(made: Any) -> np.ndarray:
    first = made[0] if isinstance(made, tuple) else made
    array = np.asarray(first)
    if array.dtype.kind not in "fiub":
        raise StimuliError(f"the environment gave the observation {str(first)[:40]!r}; expected an array of numbers")
    if array.dtype == np.uint8:
        return array
    # A single number has no axis to be a unit.
    return np.atleast_1d(array).astype(np.float32 if array.dtype.kind in "fb" else np.int64)


def _after(made: Any) -> tuple[np.ndarray, Any, bool]:
    if not isinstance(made, tuple) or len(made) not in (3, 4, 5):
        shown = f"{len(made)} values" if isinstance(made, tuple) else type(made).__name__
        raise StimuliError(f"env.step returned {shown}; expected (observation, reward, done), or with terminated, truncated and info")
    # Five: observation, reward, terminated, truncated, info.
    done = bool(made[2]) or (len(made) == 5 and bool(made[3]))
    return _observed(made[0]), made[1], done
