"""Prompts whose replies repeat, so that they are probably decisions. They are announced; nothing is learnt from them."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import LRUCache

from fingerpost.server.loop.projects import prompt_words
from fingerpost.server.loop.recognition import ObservedReply
from fingerpost.server.ops.logs import log
from fingerpost.server.schemas import ChatRequest, turn_text
from fingerpost.store.server import ServerStore
from fingerpost.task.reply_format import NoClassification, find_reply_template, single_values

FEWEST = 50
"""Replies from which on a prompt is announced."""
LONGEST = 200
"""Characters of a reply that may name a label."""
MOST_LABELS, REPLIES_PER_LABEL = 50, 5
MOST_REPLIES = 1_000
"""Replies after which a prompt is no longer watched."""
MOST_PROMPTS, MOST_STORED = 500, 100


@dataclass(slots=True)
class _Replies:
    """The replies to one prompt. `ruled_out`: they are no labels."""

    texts: Counter[str] = field(default_factory=Counter)
    ruled_out: bool = False
    announced: bool = False

    def rule_out(self) -> None:
        """Stop counting."""
        self.ruled_out, self.texts = True, Counter()


class RepeatedPrompts:
    """Counts the replies to each prompt, in memory; a prompt whose replies repeat is stored.

    Args:
        redact: applied to prompts before they are stored.
    """

    def __init__(self, store: ServerStore, redact: Callable[[str], str] | None) -> None:
        self._store, self._redact = store, redact
        self._prompts: LRUCache[bytes, _Replies] = LRUCache(maxsize=MOST_PROMPTS)
        self._lock = threading.Lock()

    def watches(self, request: ChatRequest) -> bool:
        """Whether the reply to this request would tell more."""
        if not _system(request).strip():
            return False
        with self._lock:
            found = self._prompts.get(_key(request))
            return found is None or not (found.ruled_out or found.announced)

    def add(self, request: ChatRequest, reply: ObservedReply) -> None:
        """Count a reply, and announce its prompt if its replies repeat. Blocks: for a thread."""
        with self._lock:
            found = self._prompts.setdefault(_key(request), _Replies())
            text = (reply.text or "").strip()
            if reply.tool is not None or not text or len(text) > LONGEST:
                found.rule_out()
                return
            found.texts[text] += 1
            seen = found.texts.total()
            if len(found.texts) > max(FEWEST // 2, seen // 2) or seen > MOST_REPLIES:
                found.rule_out()
            if found.ruled_out or found.announced or seen < FEWEST or seen % FEWEST:
                return
            labels = labels_in(found.texts)
            if labels is None:
                return
            found.announced, found.texts = True, Counter()
        system = _system(request)
        if self._redact is not None:
            labels = [self._redact(label) for label in labels]
        prompt = system if self._redact is None else self._redact(system)
        self._store.add_repeated_prompt(
            hashlib.sha256(_key(request)).hexdigest(), request.model, prompt, seen, labels, MOST_STORED
        )
        log(
            "a prompt's replies repeat; name it with the header x-fingerpost-decision", labels=len(labels), replies=seen
        )


def labels_in(texts: Counter[str]) -> list[str] | None:
    """The labels that replies name, if they are few and repeat; else None."""
    try:
        _template, _field, values = find_reply_template(list(texts.elements()))
        labels = sorted({str(value) for value in single_values(values)})
    except NoClassification:
        return None
    enough = 2 <= len(labels) <= MOST_LABELS and texts.total() >= REPLIES_PER_LABEL * len(labels)
    return labels if enough else None


def _system(request: ChatRequest) -> str:
    return "\n".join(turn_text(turn) for turn in request.messages if turn.role in ("system", "developer"))


def _key(request: ChatRequest) -> bytes:
    return hashlib.sha256(repr((request.model, prompt_words(_system(request)))).encode()).digest()
