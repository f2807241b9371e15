"""A monitor that follows the mean over sites."""

from __future__ import annotations

import torch
from torch import nn

from inscape.training import Monitor

HELD_OUT = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))


def test_the_mean_over_sites_is_followed_and_nothing_else():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8))
    mon = Monitor(model, HELD_OUT, ["1", "2"], "effective_rank", 1, pooled=True)
    for step in range(40):
        if step == 20:
            with torch.no_grad():
                model[0].weight[1:] = 0  # one direction is left
                model[0].bias.zero_()
        mon.step()
    values = {site: mon.result().where(site=site).column("value") for site in ("1", "2", "mean of sites")}
    for a, b, mean in zip(*values.values(), strict=True):
        assert mean == (a + b) / 2
    assert [(one.site, one.measure) for one in mon.alarms] == [("mean of sites", "effective_rank")] and 20 < mon.alarms[0].step < 30


def test_one_site_without_numbers_breaks_the_mean():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8))
    mon = Monitor(model, HELD_OUT, ["0", "1"], "effective_rank", 1, pooled=True)
    with torch.no_grad():
        model[1].weight.fill_(torch.nan)
    (told,) = mon.step()
    assert told.site == "mean of sites" and told.text.endswith("no longer a finite number")
