"""The alarm for a student that drifts away from its teacher: rarely false, soon raised, and the promise is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fingerpost.evaluation.drift import DriftMonitor, confidence_sequence

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import drift


@pytest.mark.parametrize(("shape", "streams"), [("stationary", 20), ("ties", 20), ("sudden", 20), ("slow", 20)])
def test_the_promise_is_kept_in_simulated_traffic(shape: str, streams: int) -> None:
    found = [outcome for seed in range(streams) if (outcome := drift.simulate(shape, 30_000, seed))]
    assert len(found) > 0.8 * streams
    assert sum(outcome.exceeded for outcome in found) <= 0.15 * streams
    assert sum(outcome.false for outcome in found) <= 0.15 * streams
    if shape in ("sudden", "slow"):
        assert np.mean([outcome.alarm is not None for outcome in found]) > 0.9
    else:
        assert np.mean([outcome.answered for outcome in found]) > 0.6


def test_an_alarm_is_rarely_false_however_often_it_is_looked_at() -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        monitor = DriftMonitor(0.05)
        for disagrees in random.random(2_000) < 0.05:
            monitor.add(bool(disagrees))
        alarms += monitor.alarm
    assert alarms <= 10


def test_a_student_begins_on_probation_and_goes_back_to_it_after_a_disagreement() -> None:
    monitor = DriftMonitor(0.05)
    assert monitor.probation and monitor.share_to_check(0) == 1.0
    while monitor.probation:
        monitor.add(False)
    assert len(monitor.outcomes) == 49 and monitor.evidence < 1
    assert monitor.share_to_check(1) == 0.03 and monitor.share_to_check(100_000) == 0.01
    monitor.add(True)
    assert monitor.probation and not monitor.alarm
    for _ in range(20):
        monitor.add(True)
    assert monitor.alarm


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
def test_the_confidence_sequence_covers_the_rate_at_all_times(rate: float) -> None:
    random = np.random.default_rng(1)
    missed = 0
    for _ in range(100):
        outcomes = np.cumsum(random.random(500) < rate)
        for n in range(1, 501, 7):
            low, high = confidence_sequence(n, int(outcomes[n - 1]))
            assert 0 <= low <= high <= 1
            if not low <= rate <= high:
                missed += 1
                break
    assert missed <= 8
    assert confidence_sequence(0, 0) == (0.0, 1.0)
