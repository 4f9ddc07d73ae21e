"""Made-up articles of one author, for tests of a tone of voice: no two are near-duplicates."""

from __future__ import annotations

import random

SUBJECTS = [
    "the harbour",
    "a borrowed coat",
    "early trains",
    "the price of plums",
    "my uncle's clock",
    "rain on slate",
    "two stubborn goats",
]
OPENERS = ["I confess", "Mind you", "Truth be told", "Nobody asked me", "As ever", "By Thursday", "Between ourselves"]
VERBS = ["outlived", "forgave", "misplaced", "admired", "painted", "buried", "sold", "mended", "envied", "doubted"]
THINGS = [
    "a kettle",
    "the mayor",
    "seven letters",
    "our bridge",
    "the winter",
    "an umbrella",
    "a hymn",
    "the tide",
    "this street",
    "a fiddle",
]


def articles(count: int) -> list[str]:
    draw = random.Random(7)
    found = []
    for number in range(count):
        sentences = [
            f"{draw.choice(OPENERS)}, {draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(THINGS)} and "
            f"{draw.choice(VERBS)} {draw.choice(THINGS)}, {draw.randrange(10**6)} times over."
            for _ in range(2)
        ]
        found.append(f"{draw.choice(SUBJECTS).capitalize()}, number {number}. " + " ".join(sentences))
    return found
