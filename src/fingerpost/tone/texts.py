"""The author's texts, and a lint of what would teach the model something else than the author's voice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.errors import InputError
from fingerpost.core.text import check_characters, hash_fraction, shorten
from fingerpost.core.types import Message
from fingerpost.data.duplicates import DuplicateIndex

ENDINGS = (".txt", ".md", ".markdown")
PART = "#"
"""Before the number of a part in a text's name."""
LEAST_WORDS, MOST_WORDS = 20, 500
"""Shorter texts teach nothing; longer ones are cut between paragraphs."""
MOST_QUESTION_MARKS = 0.6
OPENINGS = re.compile(
    r"^\W*(in (today's|the modern|this day and age|recent years|an? (ever|increasingly))|as an ai\b|certainly[,!]|sure[,!]|"
    r"here (is|are) (a|an|the|some)\b|welcome to\b|have you ever\b|in conclusion\b|it is important to note\b|"
    r"let's (dive|explore|delve)\b|in this (article|post|blog))",
    re.IGNORECASE,
)
TRANSCRIPT = re.compile(
    r"^\s*(\[?\(?\d{1,2}:\d{2}(:\d{2})?\]?\)?\s|(speaker|interviewer|host|guest|q|a) ?\d*:\s|>>)", re.I | re.M
)
CONTACT = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+|(?<!\w)@\w{3,}|\+?\d[\d ()/-]{8,}\d")


@dataclass(frozen=True, slots=True)
class Text:
    """A text to learn from; `name` is its file, with the number of its part where the file was cut."""

    name: str
    content: str

    @property
    def split_hash(self) -> float:
        """A number in [0, 1) that is fixed by the file's name: below the test share, the text and its other parts are test texts."""
        return hash_fraction(f"tone/{self.name.split(PART)[0]}")


@dataclass(frozen=True, slots=True)
class Finding:
    """A text that is left out, and why.

    Attributes:
        kind: a key of KINDS.
        shown: the words that were found.
    """

    kind: str
    name: str
    shown: str


KINDS = {
    "short": f"fewer than {LEAST_WORDS} words: too little to show a voice",
    "opening": "a generic opening, which every model writes already",
    "transcript": "a transcript: it teaches missing punctuation and the speech of others",
    "duplicate": "nearly the same as an earlier text: it would be learnt by heart",
    "language": "another language than most texts",
    "contact": "an address or a number of a person, which the model could repeat",
    "name": "a name from 'excluded_names' in task.toml",
    "characters": "characters that cannot be stored",
}
"""What each kind of finding means."""


def read_texts(folder: Path) -> list[Text]:
    """The texts in a folder and its subfolders, in the order of their names. Long ones are cut between paragraphs.

    Raises:
        InputError: there is no text, or a file is not UTF-8.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not files:
        raise InputError(f"{folder} has no text; put one {' or '.join(ENDINGS[:2])} file for each text there")
    found = []
    for file in files:
        try:
            content = file.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError:
            raise InputError(f"{file} is not UTF-8; save it as UTF-8") from None
        name = str(file.relative_to(folder))
        parts = list(_parts(content))
        found += [Text(f"{name}{PART}{i}" if len(parts) > 1 else name, part) for i, part in enumerate(parts, 1)]
    return found


def _parts(content: str) -> Iterator[str]:
    """A text in parts of at most MOST_WORDS words, cut between paragraphs; a longer paragraph stays whole."""
    part: list[str] = []
    words = 0
    for paragraph in re.split(r"\n\s*\n", content):
        count = len(paragraph.split())
        if part and words + count > MOST_WORDS:
            yield "\n\n".join(part)
            part, words = [], 0
        part.append(paragraph.strip())
        words += count
    if part:
        yield "\n\n".join(part)


def lint(texts: Sequence[Text], names: Iterable[str] = ()) -> tuple[list[Text], list[Finding]]:
    """The texts to learn from, and the findings on those that are left out."""
    import py3langid

    languages = [py3langid.classify(text.content[:2_000])[0] for text in texts]
    usual = Counter(languages).most_common(1)[0][0] if texts else ""
    known = DuplicateIndex()
    named = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b") if list(names) else None
    kept: list[Text] = []
    findings: list[Finding] = []
    for text, language in zip(texts, languages, strict=True):
        found = _fault(text.content, named) or (("language", language) if language != usual else None)
        if found is None:
            twins = known.add((Message("user", text.content),))
            found = ("duplicate", shorten(text.content, 40)) if twins else None
        if found is None:
            kept.append(text)
        else:
            findings.append(Finding(found[0], text.name, shorten(found[1], 60)))
    return kept, findings


def _fault(content: str, named: re.Pattern[str] | None) -> tuple[str, str] | None:
    """The kind of a text's fault and the words that show it; None where it has none of its own."""
    if reason := check_characters(content):
        return "characters", reason
    if len(content.split()) < LEAST_WORDS:
        return "short", content
    checks: list[tuple[str, Callable[[str], re.Match[str] | None]]] = [
        ("opening", OPENINGS.search), ("contact", CONTACT.search),
    ]  # fmt: skip
    if named is not None:
        checks.append(("name", named.search))
    for kind, search in checks:
        if match := search(content):
            return kind, match[0]
    marks = TRANSCRIPT.findall(content)
    if len(marks) >= 3 or not re.search(r"[.!?…。]", content):
        return "transcript", content
    return None
