"""A blind comparison by people: one HTML file that works without a server, and the sign test on their choices."""

from __future__ import annotations

import html
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.errors import InputError
from fingerpost.core.text import fingerprint, parse_json
from fingerpost.tone.evaluate import Written

FILE, CHOICES = "compare.html", "choices.json"
CHOSEN = ("first", "second", "neither")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Which text is the author's voice?</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}
body {{ max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }}
.text {{ border: 1px solid GrayText; border-radius: .5rem; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
fieldset {{ border: 0; padding: 0; margin: 1rem 0 3rem; }} label {{ margin-right: 1.5rem; }}
button {{ font: inherit; padding: .5rem 1rem; }}
</style></head><body>
<h1>Which text is more like the author?</h1>
<p>Below are {count} requests, each with two texts by two models in a random order. Two samples by the author come first. Choose, then
save your choices, and run <code>fingerpost tone count-choices PROJECT FILE</code>.</p>
<h2>The author</h2><div class="pair">{samples}</div>
<form id="form">{pairs}
<p><button type="submit">Save the choices</button> <output id="done"></output></p></form>
<script>
document.getElementById("form").addEventListener("submit", event => {{
  event.preventDefault();
  const choices = Object.fromEntries(new FormData(event.target));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify({{key: {key}, choices}}, null, 1)], {{type: "application/json"}}));
  link.download = "choices.json";
  link.click();
  document.getElementById("done").textContent = Object.keys(choices).length + " of {count} saved in choices.json";
}});
</script></body></html>
"""
PAIR = """<section><h2>{number}. {request}</h2><div class="pair"><div class="text">{first}</div><div class="text">{second}</div></div>
<fieldset><legend>More like the author:</legend>
<label><input type="radio" name="{name}" value="first"> the first</label>
<label><input type="radio" name="{name}" value="second"> the second</label>
<label><input type="radio" name="{name}" value="neither"> no difference</label></fieldset></section>
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of a blind comparison.

    Attributes:
        tuned, prompted, ties: how often the tuned model's text was chosen, the prompted one's, and neither.
        p_value: of the two-sided sign test, which leaves ties out; the chance of a result at least as one-sided if there is no difference.
    """

    tuned: int
    prompted: int
    ties: int
    p_value: float


def tuned_first(count: int, seed: int) -> list[bool]:
    """Whether the tuned model's text comes first, for each pair."""
    draw = random.Random(f"judge/{seed}")
    return [draw.random() < 0.5 for _ in range(count)]


def write_page(file: Path, samples: Sequence[Written], authors: Sequence[str], seed: int = 0) -> None:
    """Write the page; the texts' order is drawn by the seed.

    Args:
        authors: texts by the author to show first.
    """
    pairs = []
    for number, (sample, first) in enumerate(zip(samples, tuned_first(len(samples), seed), strict=True), 1):
        texts = (sample.tuned, sample.prompted) if first else (sample.prompted, sample.tuned)
        pairs.append(
            PAIR.format(
                number=number,
                name=f"pair{number}",
                request=html.escape(sample.request),
                first=html.escape(texts[0]),
                second=html.escape(texts[1]),
            )
        )
    shown = "".join(f'<div class="text">{html.escape(text)}</div>' for text in authors)
    file.parent.mkdir(parents=True, exist_ok=True)
    page = PAGE.format(
        count=len(samples),
        samples=shown,
        pairs="".join(pairs),
        key=json.dumps(key_of([sample.tuned for sample in samples])),
    )
    file.write_text(page, encoding="utf-8")


def key_of(tuned: Sequence[str]) -> str:
    """What tells one comparison from another: the tuned model's texts."""
    return fingerprint(tuned)


def judge(files: Sequence[Path], tuned_texts: Sequence[str], seed: int = 0) -> Judgement:
    """Count the choices of one or more people, and test them.

    Args:
        files: the files that the page saved.
        tuned_texts: the tuned model's texts on the page, in order.

    Raises:
        InputError: a file is not one of this page's.
    """
    from scipy.stats import binomtest

    count = len(tuned_texts)
    tuned = prompted = ties = 0
    order = tuned_first(count, seed)
    for file in files:
        try:
            value = parse_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{file} cannot be read; give the file that the page saved") from None
        if not isinstance(value, dict) or value.get("key") != key_of(tuned_texts):
            raise InputError(f"{file} belongs to another comparison; open the newest {FILE} and choose again")
        choices = value.get("choices")
        places = {f"pair{number}": number - 1 for number in range(1, count + 1)}
        if not isinstance(choices, dict) or not set(choices) <= set(places) or not set(choices.values()) <= set(CHOSEN):
            raise InputError(f"{file} has choices that the page does not offer; give the file that the page saved")
        for name, chosen in choices.items():
            place = places[name]
            if chosen == CHOSEN[2]:
                ties += 1
            elif (chosen == CHOSEN[0]) == order[place]:
                tuned += 1
            else:
                prompted += 1
    decided = tuned + prompted
    return Judgement(tuned, prompted, ties, float(binomtest(tuned, decided).pvalue) if decided else 1.0)
