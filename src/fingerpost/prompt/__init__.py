"""The one place where texts for language models are written: what they decide, and what they write themselves."""

from fingerpost.prompt.deciding import (
    PLACE,
    answer_of,
    chat,
    label_order,
    order_number,
    parse,
    prompt_fingerprint,
    render,
    reply,
    resolve,
    schema,
    system_prompt,
    training_line,
)

__all__ = [
    "PLACE",
    "answer_of",
    "chat",
    "label_order",
    "order_number",
    "parse",
    "prompt_fingerprint",
    "render",
    "reply",
    "resolve",
    "schema",
    "system_prompt",
    "training_line",
]
