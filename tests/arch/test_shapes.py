"""In tests, calls are checked against the shapes that signatures name."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from inscape.capturing.reducers.entropy import entropy
from inscape.summaries.near_pairs import near_pairs


def test_a_call_that_breaks_the_shapes_of_its_signature_is_refused():
    assert near_pairs(torch.eye(4), torch.full((4,), 0.5), 1)[0].shape == (4, 1)
    with pytest.raises(TypeCheckError, match="half"):
        near_pairs(torch.eye(4), torch.full((5,), 0.5), 1)
    with pytest.raises(TypeCheckError):
        entropy(torch.ones(1, 1, 2, 2) / 2, torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool))
