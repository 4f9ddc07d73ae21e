"""How good is a student of synthetic questions on real ones, beside naive generation and real questions?

Usage: generation.py DATA.csv LABELS.csv --gguf MODEL.gguf --folder FOLDER [--count 400] [--json OUT]

DATA has columns split, text, gold and teacher (recorded answers of the same model); LABELS has label and description.
Of DATA's questions none is shown to the writer. Compared at equal count, every question labelled by the same teacher:

ours        fingerpost generate
naive       "give me 25 common questions", with the list of what the assistant can do, repeated
naive each  the same for one label after the other
real        questions of DATA's training rows, drawn at random, with their recorded answers; the mean of five draws

Each is a project in FOLDER; what is there already is not made again. Two cores: about an hour in all.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import openai

from fingerpost.llm import gguf
from fingerpost.text import normalise

ASKED, ATTEMPTS, TEMPERATURE = 25, 200, 1.0
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": {"type": "string"}, "maxItems": ASKED}},
    "required": ["questions"],
    "additionalProperties": False,
}


def naive(url: str, labels: dict[str, str], count: int, each: bool) -> list[str]:
    """Questions by the plain prompt, asked again and again until there are `count` different ones."""
    client = openai.OpenAI(base_url=url, api_key="none", timeout=600)
    listed = "\n".join(f"- {text}" for text in labels.values())
    found: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        wanted = list(labels.values())[attempt % len(labels)]
        what = f"that mean: {wanted}." if each else f"about these:\n{listed}\n"
        request = f"Give me {ASKED} common questions that users ask an assistant about work, {what}"
        reply = client.chat.completions.create(
            model="teacher",
            messages=[{"role": "user", "content": f'{request} Reply with JSON only, {{"questions": [...]}}.'}],
            temperature=TEMPERATURE,
            max_tokens=1000,
            response_format={"type": "json_schema", "json_schema": {"name": "questions", "schema": SCHEMA}},
        )
        try:
            questions = json.loads(reply.choices[0].message.content or "")["questions"]
        except (ValueError, KeyError):
            continue
        found |= {normalise(text): text for text in questions if normalise(text) not in found}
        print(f"  naive: {attempt + 1} requests, {len(found)} different questions", flush=True)
        if len(found) >= count:
            break
    return list(found.values())[:count]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    labels = {row["label"]: row["description"] for row in csv.DictReader(given.labels.open())}
    for name, each in (("naive", False), ("naive-each", True)):
        file = given.folder / f"{name}.txt"
        if not file.exists():
            with gguf.serving(given.gguf) as url:
                file.write_text("\n".join(naive(url, labels, given.count, each)))


if __name__ == "__main__":
    main()
