"""The table of names elsewhere: every measure of this family has its row, and no row names what is not there."""

from __future__ import annotations

import re
from pathlib import Path

from inscape import measures

PAGE = Path(__file__).resolve().parents[3] / "docs" / "which-similarity.md"
ASKED = """
linear_cka linear_cka_debiased cca_mean cca_r2 svcca pwcca redundancy linear_r2 ridge_r2 procrustes procrustes_distance
procrustes_normalized shape_alpha gulp neuron_match neuron_match_soft soft_matching permutation_procrustes one_to_many_lasso
stitch_direct rbf_cka distance_correlation rsm_norm_difference minibatch_cka mutual_knn mutual_knn_adjusted jaccard_knn cknna
cycle_knn lcs_knn edit_knn second_order_cosine rank_similarity stochastic_shape stochastic_shape_energy relative_similarity
ima_score statistics_difference
""".split()


def test_every_measure_of_a_pair_has_a_row_and_every_row_a_measure() -> None:
    table = PAGE.read_text().partition("## Names elsewhere")[2]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert not set(ASKED) - named and not named - set(measures.names())
    assert all(measures.get(name).arity == 2 for name in named)
    assert all(len(row.split("|")) == 6 for row in rows)
