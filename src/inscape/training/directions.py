"""Which change of a measure is harm, where its name alone tells."""

from __future__ import annotations

# Falling: fewer directions, sharper attention, silent latents, one-sided inputs. Rising: rows or tokens that become one another. What is
# not here is watched on both sides.
_HARM = {
    **dict.fromkeys(
        ("effective_rank", "effective_rank_covariance", "numerical_rank", "participation_ratio", "rankme", "stable_rank"), "fall"
    ),
    **dict.fromkeys(("two_nn", "two_nn_ml", "mle_dimension", "mle_dimension_mean", "lpca_dimension", "isoscore", "lidar"), "fall"),
    **dict.fromkeys(("stable_rank", "von_neumann_entropy", "coding_rate", "partition_isotropy", "parameter_effective_rank"), "fall"),
    **dict.fromkeys(("attention_entropy", "head_diversity", "rank_collapse", "spectral_alignment"), "fall"),
    **dict.fromkeys(("active_units", "mixed_units", "posterior_kl"), "fall"),
    **dict.fromkeys(("mean_cosine", "token_uniformity", "feature_correlation", "passive_units", "massive_activations", "loss"), "rise"),
}


def harm_of(name: str) -> str:
    """The direction in which a measure does harm: "fall", "rise", or "both" where its name does not tell.

    Example:
        >>> harm_of("effective_rank"), harm_of("alpha_req")
        ('fall', 'both')
    """
    return _HARM.get(name, "both")
