"""The maze of the zoo and the policies that walk it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inscape.zoo import Policy, RecurrentPolicy, TMaze, train_policy
from inscape.zoo.policy import FORWARD, LEFT, RIGHT


def test_the_maze_shows_the_sign_once_and_pays_for_the_right_turn():
    env = TMaze(length=3)
    signs = set()
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        signs.add((info["sign"], info["length"]))
        assert observation[:3].tolist() == [1 - info["sign"], info["sign"], 0]
        again, _ = env.reset(seed=seed)
        assert np.array_equal(observation, again)
        for step in range(info["length"]):
            observation, reward, done, cut, _ = env.step(FORWARD)
            assert (reward, done, cut) == (0.0, False, False)
            assert observation[:3].tolist() == [0, 0, step == info["length"] - 1]
        turn, wrong = (LEFT, RIGHT) if info["sign"] == 0 else (RIGHT, LEFT)
        assert env.step(turn)[1:3] == (1.0, True)
        env.reset(seed=seed)
        assert env.step(wrong)[1:3] == (-0.1, False)  # inside the corridor a turn only costs
    assert signs == {(sign, length) for sign in (0, 1) for length in (1, 2, 3)}


def test_walking_on_at_the_junction_stays_there():
    env = TMaze(length=1)
    env.reset(seed=0)
    for _ in range(3):
        observation, reward, done, _, _ = env.step(FORWARD)
        assert (observation[2], reward, done) == (1.0, 0.0, False)


def test_acting_step_by_step_is_reading_the_whole_episode():
    torch.manual_seed(0)
    policy, observations = RecurrentPolicy(d=8), torch.randn(2, 5, 4)
    with torch.no_grad():
        scores = policy(observations)
        short = policy(torch.cat([observations, torch.zeros(2, 2, 4)], 1), torch.tensor([5, 5]))
    torch.testing.assert_close(short[:, :5], scores)
    state = None
    for t in range(5):
        action, state = policy.act(observations[0, t].numpy(), state)
        assert action == int(scores[0, t].argmax())


def test_lengths_keep_padding_out_of_the_memory():
    torch.manual_seed(0)
    policy, observations = RecurrentPolicy(d=8), torch.randn(2, 5, 4)
    with torch.no_grad():
        together = policy(observations, torch.tensor([5, 2]))
        torch.testing.assert_close(together[1, :2], policy(observations[1:, :2])[0])


def test_the_same_seed_gives_the_same_policy():
    a, b = (train_policy(Policy, TMaze(2), updates=2, seed=4) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def _share_of_right_turns(policy: torch.nn.Module) -> float:
    right = 0
    for seed in range(5000, 5100):
        env = TMaze()
        observation, _ = env.reset(seed=seed)
        state = None
        for _ in range(20):
            if isinstance(policy, RecurrentPolicy):
                action, state = policy.act(observation, state)
            else:
                action = int(policy(torch.from_numpy(observation)).argmax())
            observation, reward, done, _, _ = env.step(action)
            if done:
                right += reward > 0
                break
    return right / 100


@pytest.mark.slow
def test_only_a_policy_with_a_memory_learns_the_maze():
    assert _share_of_right_turns(train_policy(RecurrentPolicy)) > 0.95
    assert _share_of_right_turns(train_policy(Policy, updates=60)) < 0.65  # one turn in two is right by chance
