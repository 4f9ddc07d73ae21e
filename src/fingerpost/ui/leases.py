"""Cards that several people work on at once: a card is leased to one of them for some minutes, and comes back when the lease ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fingerpost.consensus.session import Card
from fingerpost.core.text import hash_fraction

LEASE_S = 300.0
SECOND = "a second opinion"
"""The reason for asking a second person."""


@dataclass(slots=True)
class _Reviewer:
    """What one person does: the card in front of them, what they asked for and what they skipped."""

    current: str | None = None
    opened: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)


class LeasedCards:
    """Hands out the cards of a list. All methods may be called from several threads.

    Args:
        double: the share of the questions that two people answer, each without seeing the other's answer.
        lease_s: seconds until a card that nobody has answered is given to somebody else.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, double: float = 0.0, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._double, self._lease_s, self._clock = double, lease_s, clock
        self._cards: dict[str, Card] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._answers: dict[str, set[str]] = {}
        self._reviewers: dict[str, _Reviewer] = {}
        self._since_begin: list[tuple[str, str, bool]] = []
        self._lock = threading.RLock()

    def wants_two(self, question_id: str) -> bool:
        """Whether two people are to answer a question."""
        return self._double > 0 and hash_fraction(f"double/{question_id}") < self._double

    def begin(self) -> None:
        """Begin to compute a new list: what is answered and taken back until `replace` is noted, too."""
        with self._lock:
            self._since_begin = []

    def replace(self, cards: Iterable[Card], answered: Mapping[str, set[str]]) -> None:
        """Take a new list of cards, the best first.

        Cards that are leased stay as they are, and so do those of questions that a second person will answer: their hints
        must not show what the first one has said.

        Args:
            answered: by question id, who has answered it, as it was read after `begin`.
        """
        with self._lock:
            self._answers = {key: set(people) for key, people in answered.items()}
            for key, reviewer, added in self._since_begin:
                people = self._answers.setdefault(key, set())
                people.add(reviewer) if added else people.discard(reviewer)
            self._since_begin = []
            kept = {key: card for key, card in self._cards.items() if self._is_leased(key) or self._is_half_done(key)}
            new = {card.question.id: card for card in cards}
            for key in [key for key in new if self._answers.get(key) and key not in kept]:
                new[key] = Card(new[key].question, SECOND)  # the first answer is in its hints
            self._cards = {**kept, **{key: card for key, card in new.items() if key not in kept}}

    def next(self, reviewer: str) -> Card | None:
        """The card in front of a reviewer, else the next one that is free; None where there is none."""
        with self._lock:
            person = self._person(reviewer)
            if person.current in self._cards and self._is_open(person.current, reviewer):
                return self._lease(person.current, reviewer)
            person.current = None
            for key in self._cards:
                if key not in person.skipped and self._is_open(key, reviewer):
                    return self._lease(key, reviewer)
            return None

    def show(self, reviewer: str, card: Card) -> None:
        """Put a card in front of a reviewer, also one that they have answered or skipped before."""
        with self._lock:
            person, key = self._person(reviewer), card.question.id
            self._release(person.current, reviewer)
            self._cards = {key: self._cards.get(key, card)} | self._cards
            person.skipped.discard(key)
            person.opened.add(key)
            self._note(key, reviewer, False)
            self._lease(key, reviewer)

    def card(self, question_id: str) -> Card | None:
        """The card of a question, if it is in the list."""
        return self._cards.get(question_id)

    def answered(self, reviewer: str, question_id: str) -> None:
        """Note an answer; also of one whose lease has ended."""
        with self._lock:
            self._person(reviewer).opened.discard(question_id)
            self._note(question_id, reviewer, True)
            self._release(question_id, reviewer)

    def withdrawn(self, reviewer: str, question_id: str) -> None:
        """Note that an answer was taken back."""
        with self._lock:
            self._note(question_id, reviewer, False)

    def skip(self, reviewer: str, question_id: str) -> None:
        """Do not show a question to a reviewer again."""
        with self._lock:
            self._person(reviewer).skipped.add(question_id)
            self._person(reviewer).opened.discard(question_id)
            self._release(question_id, reviewer)

    def decided(self, question_id: str, people: Iterable[str]) -> bool:
        """Note who has answered a question elsewhere; whether nobody else has to."""
        with self._lock:
            for reviewer in people:
                self._note(question_id, reviewer, True)
            return self._missing(question_id) <= 0

    def is_opened(self, reviewer: str, question_id: str) -> bool:
        """Whether a reviewer has asked for this question."""
        with self._lock:
            return question_id in self._person(reviewer).opened

    @property
    def most_skipped(self) -> int:
        """How many questions the reviewer who has skipped most has skipped."""
        with self._lock:
            return max((len(person.skipped) for person in self._reviewers.values()), default=0)

    @property
    def left(self) -> int:
        """Cards that still need an answer."""
        with self._lock:
            return sum(self._missing(key) > 0 for key in self._cards)

    # --- internals, under the lock

    def _note(self, key: str, reviewer: str, added: bool) -> None:
        people = self._answers.setdefault(key, set())
        people.add(reviewer) if added else people.discard(reviewer)
        self._since_begin.append((key, reviewer, added))

    def _person(self, reviewer: str) -> _Reviewer:
        return self._reviewers.setdefault(reviewer, _Reviewer())

    def _lease(self, key: str, reviewer: str) -> Card:
        self._leases[key] = (reviewer, self._clock() + self._lease_s)
        self._person(reviewer).current = key
        return self._cards[key]

    def _release(self, key: str | None, reviewer: str) -> None:
        if key is None:
            return
        if self._leases.get(key, ("", 0.0))[0] == reviewer:
            del self._leases[key]
        if self._person(reviewer).current == key:
            self._person(reviewer).current = None

    def _is_open(self, key: str, reviewer: str) -> bool:
        if reviewer in self._answers.get(key, ()):
            return False
        if self._missing(key) <= 0 and key not in self._person(reviewer).opened:
            return False
        return not self._is_leased(key) or self._leases[key][0] == reviewer

    def _is_leased(self, key: str) -> bool:
        return key in self._leases and self._leases[key][1] > self._clock()

    def _is_half_done(self, key: str) -> bool:
        return bool(self._answers.get(key)) and self._missing(key) > 0

    def _missing(self, key: str) -> int:
        """How many answers a question still needs."""
        wanted = 2 if self.wants_two(key) else 1
        return wanted - len(self._answers.get(key, ()))
