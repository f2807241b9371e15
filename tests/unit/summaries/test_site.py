"""The shared summaries of one site: fp64 where fp32 products would not do, decided by the spectrum itself."""

import numpy as np
import pytest

from inscape.store import Store
from inscape.summaries import Moments, SiteRows
from inscape.summaries.site import SiteSummaries, shared_needs


def site(values):
    return SiteRows(Store.from_arrays({"x": values})["x"]).load()


NEEDED, (KEY,) = shared_needs([(Moments, {})])


def rotated(spectrum, n, seed=0):
    """Rows whose directions of unequal variance lie across the units: there fp32 products lose the small ones."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((len(spectrum), len(spectrum))))[0]
    return ((rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum)) @ turn).astype(np.float32)


def test_a_small_direction_that_the_pilot_cannot_see_is_found_afterwards():
    X = rotated(np.r_[np.ones(299), 1e-6], 2000)
    summaries = SiteSummaries(site(X), NEEDED)
    assert not summaries.lost_digits  # nobody has asked for a spectrum yet
    rough = summaries.full[KEY].eigenvalues
    assert summaries.lost_digits
    exact = np.linalg.eigvalsh(np.cov(X.astype(np.float64), rowvar=False, ddof=0))[0]
    precise = SiteSummaries(site(X), NEEDED, precise=True)
    assert float(precise.full[KEY].eigenvalues[-1]) == pytest.approx(exact, rel=1e-6)
    assert not precise.lost_digits
    assert abs(float(rough[-1]) / exact - 1) > 1e-3


def test_an_even_spectrum_needs_no_second_pass():
    summaries = SiteSummaries(site(rotated(np.ones(40), 500)), NEEDED)
    summaries.full[KEY].eigenvalues
    assert not summaries.lost_digits


def test_a_large_direction_is_seen_by_the_pilot():
    X = rotated(np.r_[1e7, np.ones(39)], 500)
    exact = np.linalg.eigvalsh(np.cov(X.astype(np.float64), rowvar=False, ddof=0))
    got = SiteSummaries(site(X), NEEDED).full[KEY].eigenvalues.flip(0)
    np.testing.assert_allclose(got, exact, rtol=1e-6)


def test_needs_are_shared_with_the_largest_k():
    from inscape.summaries import Neighbors

    needed, keys = shared_needs([(Neighbors, {"k": 2}), (Neighbors, {"k": 20}), (Neighbors, {"k": 5, "metric": "cosine"})])
    assert keys[0] == keys[1] != keys[2]
    assert sorted(options["k"] for options in needed.values()) == [5, 20]
