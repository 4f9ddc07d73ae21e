"""Simulated traffic of a student in service: how often the promised disagreement is exceeded, and how soon a drift is found.

Usage: drift.py [--streams 1000] [--length 100000]

Each stream begins with labelled rows on which the cut-off is proven for a disagreement of 5 %, and goes on with requests of which
the student answers those it is sure of. A checked answer is one that the teacher gave, too. For each shape of traffic:

- alarms: the share of streams with an alarm; false ones are raised while the true disagreement is within the promise.
- exceeded: streams in which the student's answers disagreed with the teacher's more often than promised, over the whole stream.
  (Exactly at the limit that is a coin's toss, so that this shape says something of false alarms only.)
- delay: requests between the change and the alarm, the median, beside that of a fixed-sample test, which looks once after every
  300 checked answers at their exact bound, and so raises false alarms the more often the longer it runs.
- answered: of the requests that the student is sure of, those that it answered; checked: those that the teacher answered as well.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerpost.evaluation.drift import DriftMonitor
from fingerpost.students.cutoff import at_least, choose_cutoff

LIMIT, LABELLED, FIXED = 0.05, 1_000, 300
SHAPES = ("stationary", "at the limit", "ties", "rare labels", "sudden", "slow", "partial")


@dataclass(frozen=True)
class Outcome:
    """What became of a stream. `alarm` and `fixed` count requests from its beginning; None: no alarm."""

    alarm: int | None
    false: bool
    exceeded: bool
    answered: float
    checked: float
    fixed: int | None


def change_of(shape: str, length: int) -> NDArray[np.float64]:
    """The share of requests of a kind that the student has never seen, over time."""
    time = np.arange(length) / length
    return {
        "sudden": 0.5 * (time >= 0.5),
        "slow": 0.4 * np.clip((time - 0.25) / 0.5, 0, 1),
        "partial": 0.2 * (time >= 0.5),
    }.get(shape, np.zeros(length))


def requests_of(
    random: np.random.Generator, shape: str, new: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The student's confidence in each request, and the probability that it disagrees with the teacher.

    It is confidently wrong in a third of what it has never seen.
    """
    confidence = random.beta(4, 1, len(new))
    wrong = 0.9 * (1 - confidence) ** 1.2
    if shape == "rare labels":  # of a label with 2 % of the requests it gets half wrong, with the same confidence
        wrong = np.where(random.random(len(new)) < 0.02, 0.5, wrong)
    wrong = np.where(random.random(len(new)) < new, np.maximum(wrong, 0.35), wrong)
    return np.round(confidence, 1) if shape == "ties" else confidence, wrong


def simulate(shape: str, length: int, seed: int) -> Outcome | None:
    """One stream; None where no cut-off could be proven, so that the student answers nothing."""
    random = np.random.default_rng(seed)
    known, error = requests_of(random, shape, np.zeros(LABELLED))
    found = choose_cutoff(known.tolist(), (random.random(LABELLED) >= error).tolist(), 1 - LIMIT)
    if found is None:
        return None
    new = change_of(shape, length)
    confidence, wrong = requests_of(random, shape, new)
    sure = confidence >= found.value
    if shape == "at the limit":  # the worst that may be promised: exactly the limit, at any confidence
        wrong = np.full(length, LIMIT)
    disagrees = random.random(length) < wrong
    drawn = random.random(length)
    monitor = DriftMonitor(LIMIT)
    position = answered = errors = checked = eligible = 0
    alarm: int | None = None
    while position < length and alarm is None:
        share = monitor.share_to_check(answered)
        part = slice(position, min(length, position + max(64, int(3 / share))))
        hits = np.flatnonzero(sure[part] & (drawn[part] < share))
        end = int(hits[0]) + 1 if len(hits) else part.stop - position
        part = slice(position, position + end)
        eligible += int(sure[part].sum())
        if not monitor.probation:
            answered += int(sure[part].sum())
            errors += int((sure[part] & disagrees[part]).sum())
        position += end
        if len(hits):
            checked += 1
            monitor.add(bool(disagrees[position - 1]))
            if monitor.alarm:
                alarm = position
    then = slice(alarm or 0, (alarm or 0) + 2_000)
    true_rate = float(wrong[then][sure[then]].mean()) if sure[then].any() else 0.0
    return Outcome(
        alarm,
        alarm is not None and true_rate <= LIMIT + 1e-9,
        errors > LIMIT * answered,
        answered / max(1, eligible),
        checked / max(1, eligible),
        fixed_sample(sure & (drawn < 0.01), disagrees),
    )


def fixed_sample(checked: NDArray[np.bool_], disagrees: NDArray[np.bool_]) -> int | None:
    """When a test of each 300 checked answers, at the level of 95 %, first finds too many disagreements."""
    places = np.flatnonzero(checked)
    for start in range(0, len(places) - FIXED + 1, FIXED):
        part = places[start : start + FIXED]
        if at_least(int(disagrees[part].sum()), FIXED) > LIMIT:
            return int(part[-1])
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--length", type=int, default=100_000)
    given = parser.parse_args()
    print(f"{given.streams} streams of {given.length:,} requests; promised disagreement {LIMIT:.0%}")
    print("shape          streams  alarms  false  exceeded  delay  fixed: alarms  false  delay  answered  checked")
    for shape in SHAPES:
        found = [outcome for seed in range(given.streams) if (outcome := simulate(shape, given.length, seed))]
        new = change_of(shape, given.length)
        start = int(np.argmax(new > 0)) if new.any() else None

        def delay(times: list[int | None], start: int | None = start) -> str:
            late = [time - start for time in times if time is not None and start is not None and time >= start]
            return f"{np.median(late):,.0f}" if late else "-"

        fixed = [outcome.fixed for outcome in found]
        early = [time for time in fixed if time is not None and (start is None or time < start)]
        print(
            f"{shape:14} {len(found):7} {np.mean([one.alarm is not None for one in found]):7.3f} "
            f"{np.mean([one.false for one in found]):6.3f} {np.mean([one.exceeded for one in found]):9.3f} "
            f"{delay([one.alarm for one in found]):>6} {np.mean([time is not None for time in fixed]):14.3f} "
            f"{len(early) / len(found):6.3f} {delay(fixed):>6} {np.mean([one.answered for one in found]):9.3f} "
            f"{np.mean([one.checked for one in found]):8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
