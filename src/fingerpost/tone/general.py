"""General requests with the untuned model's own answers: mixed into training, they keep what the model could do before.

This is rehearsal with the model's own outputs, as in self-distillation (Yang et al. 2024). Whether it worked is measured on requests
that were not trained on.
"""

from __future__ import annotations

from typing import Any

from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.data.dialogues import Dialogue, Turn

REPLY_TOKENS = 80
HELD_OUT = 6
"""General requests that measure what is left, and are not trained on."""
REQUESTS = (
    "What is the capital of Canada?", "Explain what a database index is.", "How do I boil an egg?",
    "List three uses of a paper clip.", "What is 17 plus 25?", "Why is the sky blue?",
    "Translate 'good morning' into French.", "Name the planets of the solar system.", "What does HTTP stand for?",
    "How many days does a leap year have?", "Give me a short packing list for a weekend by the sea.",
    "What is the difference between weather and climate?", "Write a Python function that adds two numbers.",
    "Name three vegetables that grow under the ground.", "What is photosynthesis?", "How do I reset a forgotten password?",
    "Sort these numbers: 9, 2, 7, 4.", "What is a synonym of 'quick'?", "Summarise in one sentence why people sleep.",
    "Which ocean is the largest?", "How do I change a bicycle tyre?", "What is the boiling point of water?",
    "Give two arguments for working from home.", "Who wrote Romeo and Juliet?", "What is a prime number?",
    "Convert 10 kilometres to miles.", "How do plants drink?", "What is the purpose of a firewall?",
    "Name a mammal that can fly.", "What should I check before buying a used car?", "Explain gravity to a child.",
    "What is the opposite of 'generous'?", "How long does it take to learn to swim?", "What is inflation?",
    "Suggest a name for a small bakery.", "What is the first step in solving a conflict?",
)  # fmt: skip


def own_answers(
    student: Any, count: int, on_progress: ProgressCallback = no_progress
) -> tuple[list[Dialogue], list[Dialogue]]:
    """Conversations with an untuned model's greedy answers: `count` to mix in, and HELD_OUT to measure on.

    Args:
        student: a generative student whose adapter is untrained.
    """
    from fingerpost.students.lora.engine import fastest_writer
    from fingerpost.students.lora.generation import Sampling

    writer = fastest_writer(student)
    wanted = min(count, len(REQUESTS) - HELD_OUT) + HELD_OUT
    found: list[Dialogue] = []
    for request in REQUESTS:
        if len(found) == wanted:
            break
        messages = [{"role": "user", "content": request}]
        pieces = list(writer.reply(messages, Sampling(temperature=0, max_tokens=REPLY_TOKENS)))
        answer, ends = "".join(piece.text for piece in pieces), pieces[-1].finish == "stop"
        on_progress(Progress("train", done=len(found), total=wanted, detail="the base model's general answers"))
        if answer.strip():
            found.append(Dialogue((Turn("user", request), Turn("assistant", answer.strip(), 1.0, ends))))
    return found[HELD_OUT:], found[:HELD_OUT]
