"""The weight of the prior over training: up along a ramp, once or again and again."""

from __future__ import annotations

from inscape.errors import DegenerateInputError
from inscape.training.objectives.base import objective


@objective("schedule", source="Bowman et al. 2016; Fu et al. 2019")
def beta_schedule(step: int, length: int, end: float = 1.0, *, begin: float = 0.0, cycles: int = 1, rising: float = 0.5) -> float:
    """The weight β of a variational autoencoder's prior at a step: a ramp that a code can grow under before the prior presses.

    The `length` steps are cut into `cycles` equal parts; in each the weight rises along a line from `begin` to `end` during the share
    `rising` of it, and stays. After the last step it stays at `end`.

    Args:
        step: of training, from 0.
        length: steps of the whole schedule.
        end: the weight at the top.
        begin: the weight at the start of each cycle.
        cycles: 1 for a single ramp; several begin anew, which brings silent latents back.
        rising: the share of a cycle that is ramp.

    Returns:
        The weight.

    Raises:
        DegenerateInputError: a negative step or weight, no steps, no cycle, or a share outside (0, 1].

    Source:
        Bowman et al., "Generating sentences from a continuous space", CoNLL 2016, for one ramp; Fu et al., "Cyclical annealing schedule",
        NAACL 2019, for several.

    Example:
        >>> [beta_schedule(step, 100, cycles=2) for step in (0, 10, 25, 49, 50, 75, 200)]
        [0.0, 0.4, 1.0, 1.0, 0.0, 1.0, 1.0]
    """
    if step < 0 or length < 1 or cycles < 1 or not 0 < rising <= 1 or min(begin, end) < 0:
        raise DegenerateInputError(
            f"step={step}, length={length}, cycles={cycles}, rising={rising}, begin={begin}, end={end}: steps and weights are 0 or more, "
            "length and cycles 1 or more, rising a share above 0 and up to 1"
        )
    if step >= length:
        return float(end)
    along = (step * cycles / length) % 1.0
    return begin + (end - begin) * min(1.0, along / rising)
