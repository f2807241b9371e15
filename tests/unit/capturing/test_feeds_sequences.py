"""Recurrent layers over steps, and policies over the steps of an environment."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

import inscape as ix
from inscape.capturing import Stimuli
from inscape.errors import SiteNotFoundError, StimuliError
from inscape.zoo import Policy, RecurrentPolicy, TMaze

LENGTHS = (4, 7, 4, 2, 5)


def _sequences(width: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(length, width)).astype(np.float32) for length in LENGTHS]


MAKERS = {
    "lstm": lambda: nn.LSTM(3, 5, num_layers=2, batch_first=True),
    "lstm, time first": lambda: nn.LSTM(3, 5, num_layers=2),
    "gru, both ways": lambda: nn.GRU(3, 5, bidirectional=True, batch_first=True),
    "gru, time first": lambda: nn.GRU(3, 5),
    "rnn": lambda: nn.RNN(3, 5, batch_first=True),
}


@pytest.mark.parametrize("name", list(MAKERS))
def test_sequences_of_different_length_share_a_batch_of_a_recurrent_layer(name):
    torch.manual_seed(0)
    module = MAKERS[name]()
    forwards: list[int] = []
    module.register_forward_pre_hook(lambda m, args: forwards.append(1))
    ix.load(module).atlas(torch.randn(2, 2, 3))
    forwards.clear()
    store = ix.capture(module, _sequences(), "output", "all")
    runs = len(forwards)
    assert store.manifest.plan["input"]["mixes_lengths"]
    assert store["output"].position.tolist() == [p for length in LENGTHS for p in range(length)]
    with torch.no_grad():
        for i, sequence in enumerate(_sequences()):
            # Unbatched, [t, d], which every recurrent layer takes.
            expected, _ = module(torch.from_numpy(sequence))
            torch.testing.assert_close(store["output"].torch()[store["output"].stimulus == i], expected, rtol=0, atol=1e-6)
    assert runs < len(LENGTHS) + 3


@pytest.mark.parametrize("name", list(MAKERS))
def test_last_hidden_and_cell_states_are_sites(name):
    torch.manual_seed(0)
    module = MAKERS[name]()
    sites = ["output:out.1.0", "output:out.1.1"] if isinstance(module, nn.LSTM) else ["output:out.1"]
    store = ix.capture(module, _sequences(), sites)
    with torch.no_grad():
        for i, sequence in enumerate(_sequences()):
            _, states = module(torch.from_numpy(sequence))
            for site, state in zip(sites, states if isinstance(states, tuple) else [states], strict=True):
                # [layers · directions, d] of one sequence, end to end.
                torch.testing.assert_close(store[site].torch()[i], state.flatten(), rtol=0, atol=1e-6)


class Stepper(nn.Module):
    """A cell that is called once a step, as hand-written recurrent networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 5)

    def forward(self, x):
        h = c = torch.zeros(x.shape[0], 5)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        return h


def test_every_call_of_a_cell_is_a_site_of_its_own():
    torch.manual_seed(0)
    module, sequences = Stepper(), np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    store = ix.capture(module, sequences, ["cell#0", "cell#4", "cell:out.1#4"])
    h = c = torch.zeros(4, 5)
    with torch.no_grad():
        for t in range(5):
            h, c = module.cell(torch.from_numpy(sequences[:, t]), (h, c))
            if t == 0:
                torch.testing.assert_close(store["cell#0"].torch(), h)
    torch.testing.assert_close(store["cell#4"].torch(), h)
    torch.testing.assert_close(store["cell:out.1#4"].torch(), c)


def test_cell_states_of_every_step_come_from_running_a_layer_step_by_step():
    torch.manual_seed(0)
    module, sequences = nn.LSTM(3, 5, batch_first=True), _sequences()[:3:2]  # of one length

    def step_by_step(lstm, batch):
        x, state = batch["input"], None
        for t in range(x.shape[1]):
            out, state = lstm(x[:, t : t + 1], state)
        return out

    store = ix.capture(ix.load(module, forward=step_by_step), sequences, ["output:out.1.1#0", "output:out.1.1#3"])
    with torch.no_grad():
        for steps, site in ((1, "output:out.1.1#0"), (4, "output:out.1.1#3")):
            _, (_, cell) = module(torch.from_numpy(np.stack(sequences))[:, :steps])
            torch.testing.assert_close(store[site].torch(), cell[0], rtol=0, atol=1e-6)


def test_an_entry_that_is_not_there_is_refused_before_the_run():
    module = nn.GRU(3, 5, batch_first=True)
    message = "site 'output:out.1.0.2': the output of module '' is a tuple with nothing at '1.0.2'; expected a tensor"
    with pytest.raises(SiteNotFoundError, match=re.escape(message)):
        ix.capture(module, _sequences(), "output:out.1.0.2")
    with pytest.raises(SiteNotFoundError, match="is a tuple with nothing at '2'"):
        ix.capture(module, _sequences(), "output:out.2")


def test_the_last_states_are_listed_and_can_be_written():
    torch.manual_seed(0)
    module = nn.LSTM(3, 5, num_layers=2, batch_first=True)
    rows = {row.name: row for row in ix.load(module).sites()}
    assert (
        rows["output:out.1.0"].shape == (2, 10) and rows["output:out.1.1"].note == "last cell state of 2 layers and directions, end to end"
    )
    model, x = ix.load(module), torch.randn(4, 6, 3)
    with torch.no_grad():
        _, (_, cell) = module(x)
        with ix.edit(model, "output:out.1.1", ix.edits.scale(3.0)):
            _, (_, tripled) = module(x)
    torch.testing.assert_close(tripled, 3 * cell)


def test_a_module_that_takes_lengths_gets_them():
    torch.manual_seed(0)
    policy = RecurrentPolicy().eval()
    sequences = _sequences(4)
    store = ix.capture(policy, sequences, ["encoder", "memory", "head"], "all")
    with torch.no_grad():
        for i, sequence in enumerate(sequences):
            x = torch.from_numpy(sequence)[None]
            for site, expected in (("memory", policy.memory(policy.encoder(x))[0]), ("head", policy(x))):
                torch.testing.assert_close(store[site].torch()[store[site].stimulus == i], expected[0], rtol=0, atol=1e-6)


class Wanders(RecurrentPolicy):
    """Walks to the junction and then turns left, whatever its memory says, so that episodes end."""

    def act(self, observation, state=None):
        _, state = super().act(observation, state)
        return (1 if observation[2] else 0), state


def test_an_episode_is_one_sequence_of_a_policy_that_remembers():
    torch.manual_seed(3)
    policy, env = Wanders().eval(), TMaze(length=4)
    stimuli = Stimuli.from_episodes(policy, env, episodes=6, seed=10)
    assert len(stimuli) == 6 and stimuli.column("episode") == list(range(6))
    store = ix.capture(policy, stimuli, ["memory", "head"], "all")
    view = store["memory"]
    rows = iter(view.torch())
    for episode in range(6):
        observation, info = env.reset(seed=10 + episode)
        state, done, step = None, False, 0
        seen: list[torch.Tensor] = []
        handle = policy.memory.register_forward_hook(lambda m, args, out, seen=seen: seen.append(out[0][0, -1].clone()))
        while not done:
            action, state = policy.act(observation, state)
            torch.testing.assert_close(next(rows), seen[-1], rtol=0, atol=1e-6)
            where = int(np.flatnonzero((view.stimulus == episode) & (view.position == step))[0])
            observation, reward, done, _, _ = env.step(action)
            told = [view.column(name)[where] for name in ("step", "action", "reward", "done")]
            assert told == [step, action, reward, done]
            step += 1
        handle.remove()
        assert step == info["length"] + 1
    assert next(rows, None) is None
    alone = ix.capture(policy, stimuli, ["memory", "head"], "all", batch_size=1)
    for site in alone.sites:
        torch.testing.assert_close(store[site].torch(), alone[site].torch(), rtol=0, atol=1e-6)


def test_an_observation_is_one_stimulus_of_a_policy_that_does_not_remember():
    torch.manual_seed(0)
    policy, env = Policy().eval(), TMaze(length=2)
    stimuli = Stimuli.from_episodes(policy, env, episodes=3, seed=0, steps=5)
    store = ix.capture(policy, stimuli, "layers.1")
    view, row = store["layers.1"], 0
    for episode in range(3):
        observation, _ = env.reset(seed=episode)
        for step in range(5):
            with torch.no_grad():
                hidden = policy.layers[1](policy.layers[0](torch.from_numpy(observation)[None]))
                action = int(policy.head(hidden).argmax())
            torch.testing.assert_close(view.torch()[row], hidden[0], rtol=0, atol=1e-6)
            assert [view.column(name)[row] for name in ("episode", "step", "action")] == [episode, step, action]
            observation, _, done, _, _ = env.step(action)
            row += 1
            if done:
                break
    assert row == view.n and stimuli.ids[:2] == ["0.0", "0.1"]


def test_any_function_is_a_policy_and_old_environments_are_read():
    class Counter:
        def reset(self, seed=None):
            self.t = 0
            return 0

        def step(self, action):
            self.t += action
            return self.t, 1.0, self.t >= 3

    stimuli = Stimuli.from_episodes(lambda observation: 1, Counter(), episodes=2, by="episode")
    assert [stimuli[i].tolist() for i in range(2)] == [[[0], [1], [2]]] * 2
    assert stimuli.column("done") == [[False, False, True]] * 2
    flat = Stimuli.from_episodes(lambda observation: 1, Counter(), episodes=1, steps=2)
    assert flat.column("done") == [False, False] and flat.column("action") == [1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Stimuli.from_episodes(Policy(), TMaze(), by="row"), "by='row' is unknown; expected 'step' or 'episode'"),
        (lambda: Stimuli.from_episodes(Policy(), TMaze(), episodes=0), "episodes=0 of at most steps=1000 leave nothing to see"),
        (lambda: Stimuli.from_episodes(3, TMaze()), "int is no policy: give a module, a function of an observation, or an object with act"),
        (lambda: Stimuli.from_episodes(nn.Flatten(0), TMaze()), "Flatten returned [4] for one observation; expected scores [1, actions]"),
        (lambda: TMaze(length=0), "a corridor of length 0 has no junction to walk to; give 1 or more"),
    ],
)
def test_what_is_no_policy_and_no_maze_is_told(call, message):
    with pytest.raises((StimuliError, ValueError), match=re.escape(message)):
        call()
