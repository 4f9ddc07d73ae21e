"""Attributes that plans draw from: writing styles, personas, situations, lengths, unrelated topics.

These strings are part of the prompts: changing them changes what is generated.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """A writing style.

    Attributes:
        instruction: completes "How they write: ...".
        openings: first words to draw from; may be empty words.
        weight: relative frequency.
    """

    name: str
    instruction: str
    openings: tuple[str, ...]
    weight: float


def _style(name: str, weight: float, instruction: str, openings: str) -> Style:
    return Style(name, instruction, tuple(opening.strip() for opening in openings.split("/")), weight)


STYLES = (
    _style("plain", 5.0, "plainly, as one talks", "I want to / do I / when / can I / is there / I need / how do I / could you / I'd like / are / where / I'm / please / my"),
    _style("question", 5.0, "as one short question", "what / when / how many / which / who / where / is / do / how / can you tell me / what's / how long / does / will"),
    _style("command", 3.0, "as a short command", "show / tell me / find / get / give me / check / look up / help me / let me / please / I need you to / list / make"),
    _style("hurried", 2.0, "in a hurry, few words, no punctuation", "can / my / how / need / what / any / where / pls / when / got / still / no"),
    _style("formal", 2.0, "politely, in whole sentences", "Could you / I would / Please / Is it / May I / Would you / I am / Can you / We would / I wonder / Good morning"),
    _style("detailed", 1.5, "with details: names, dates, amounts or places", "on / for / my / I / next / since / from / in / can you / the / last / we"),
    _style("typos", 0.8, "fast on a phone, with typos and missing letters", "hwo do / can u / i ned / wats / pls / wher is / wen / my / i wnat / cna / dont / is ther"),
    _style("spoken", 0.8, "as a voice transcript: spoken, with filler words, no punctuation", "um / so / okay so / yeah / hi uh / hey / well / uh can you / right so / oh"),
    _style("indirect", 0.5, "indirectly: tells what happened and lets the wish be guessed", "I just / my / we / yesterday / since / I thought / nobody / this morning / somebody / I can't"),
    _style("annoyed", 0.5, "annoyed, it is not the first time", "I asked / why / still / this is / how often / again / seriously / I have been / who / nothing"),
    _style("two wishes", 0.3, "with two wishes in one message, the one that is meant first", "I need / please / can you / I want / could you / first / help me / when"),
    _style("keywords", 0.5, "only key words, as typed into a search box", " / the / my / how / where / "),
)  # fmt: skip

LIKE_USERS = Style("as users write", "as its users do above", (), 0.0)

PERSONAS = (
    "someone new who does not know the right words",
    "someone who has done this often",
    "someone on the way, on a phone",
    "someone whose mother tongue is another one",
    "someone asking for a colleague or a relative",
    "someone who has little time today",
    "an older person",
    "a young person",
    "someone who is worried",
    "someone who only compares what is possible",
)

SITUATIONS = (
    "asking for the second time",
    "about to leave for some days",
    "with a deadline today",
    "who has been told something else before",
    "who has just noticed a mistake",
    "preparing for next month",
)

LENGTHS = (("", 0.6), ("; at most six words each", 0.2), ("; one long sentence or two each", 0.2))
"""Suffixes of a style's instruction, and their relative frequencies."""

UNRELATED_TOPICS = (
    "the weather", "a recipe", "a football result", "a joke", "a translation", "homework", "a film", "music to play",
    "the way to a station", "a headache", "the time in another city", "a pet", "buying a used car", "the news",
    "a poem", "a birthday present", "the meaning of a word", "a sum", "a book to read", "a hotel", "gardening",
    "an alarm for tomorrow", "small talk", "who you are", "a game", "stars and planets", "history", "washing a shirt",
)  # fmt: skip
