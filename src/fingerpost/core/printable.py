"""Text from outside that is safe to print."""

from __future__ import annotations

import unicodedata

_BIDIRECTIONAL = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def printable(text: str) -> str:
    """The text with control and bidirectional formatting characters replaced: they could manipulate the terminal.

    Lone surrogates and non-characters, which cannot stand in a file of XML or UTF-8, are replaced, too.
    """
    if text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t")
        or unicodedata.bidirectional(char) in _BIDIRECTIONAL
        or ord(char) & 0xFFFE == 0xFFFE
        else char
        for char in text
    )
