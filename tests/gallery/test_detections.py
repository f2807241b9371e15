"""The table of what a monitor sees, and the page that shows it."""

from __future__ import annotations

import json

from studies import detections


def test_the_page_shows_the_record():
    found = json.loads(detections.RECORD.read_text())
    assert sorted(found) == ["attention", "contrastive", "explosion", "posterior", "simsiam"]
    assert detections.table(found) in detections.PAGE.read_text()


def test_every_reported_collapse_is_seen_before_the_loss():
    for name, facts in json.loads(detections.RECORD.read_text()).items():
        for seed in map(str, detections.REPORTED):
            assert detections.before(facts["collapse"][seed]), (name, seed)
            assert seed in facts["healthy"]


def test_before_is_before_the_loss_or_half_the_metric():
    run = {"alarm": 10, "loss": 20, "half": 5}
    assert detections.before(run) and not detections.before({**run, "loss": 10}) and not detections.before({**run, "alarm": None})
    assert not detections.before({**run, "loss": None}) and detections.before({**run, "loss": None, "half": None})
