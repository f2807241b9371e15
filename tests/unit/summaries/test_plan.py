"""What a plan says, and what it refuses."""

import pytest

from inscape.errors import MemoryBudgetError
from inscape.summaries.plan import Plan, Step, choose_groups, format_seconds, machine_rate, memory_budget, require_fit, site_blocks


def test_a_plan_adds_up_and_prints():
    plan = Plan((Step("a", "resident", 10, 100.0, 1), Step("b", "tiles", 30, 50.0, 2)), 10**9, 32, 2.0)
    assert (plan.bytes, plan.flops, plan.passes) == (30, 150.0, 3)
    assert "jackknife over 32 groups" in str(plan) and "tiles" in plan._repr_html_()
    assert plan.rows()[1]["route"] == "tiles"


def test_groups_follow_the_cost():
    assert choose_groups(1.0, 0.0, 100, "auto") == 32
    assert choose_groups(1.0, 0.0, 5, "auto") == 5  # a group holds a source at least
    assert choose_groups(0.0, 1e30, 100, "auto") == 8
    assert choose_groups(0.0, 1e30, 100, "jackknife") == 32
    assert choose_groups(1.0, 1.0, 100, 12) == 12
    assert choose_groups(1.0, 1.0, 100, None) == 0
    assert choose_groups(1.0, 1.0, 1, "auto") == 0


def test_memory_is_read_and_refused_when_hopeless():
    assert memory_budget("2GB") == 2 * 10**9
    with pytest.raises(MemoryBudgetError, match="at least 17 MB"):
        memory_budget("1MB")
    with pytest.raises(ValueError, match="write for instance '4GB'"):
        memory_budget("plenty")
    with pytest.raises(MemoryBudgetError, match=r"the RDM needs 3.0 GB, but memory= allows 1.0 GB; sample"):
        require_fit(3 * 10**9, 10**9, "the RDM", "sample")


def test_sites_are_cut_into_blocks_that_fit():
    assert site_blocks([4, 4, 4, 9, 1], 8) == [[0, 1], [2], [3], [4]]


def test_speed_is_a_number():
    assert machine_rate() > 1e8
    assert [format_seconds(s) for s in (3, 600, 9000)] == ["3.0 s", "10 min", "2.5 h"]
