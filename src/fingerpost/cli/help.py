"""What `--help` shows below a command's options: two examples and the page of the docs."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "init": (
        "task",
        ("fingerpost init tickets --from tickets.csv", "fingerpost init tickets   (asks in the terminal)"),
    ),
    "run": ("README", ("fingerpost run tickets --budget 5", "fingerpost run examples/hr-router --yes")),
    "status": ("README", ("fingerpost status tickets", "fingerpost status -C tickets")),
    "backup": ("promises", ("fingerpost backup copy.db -C tickets", "fingerpost backup copy.db -C tickets/served")),
    "repair": ("promises", ("fingerpost repair tickets", "fingerpost repair tickets/served")),
    "forget": (
        "forget",
        ("fingerpost forget 'I am Jane Doe, ...' -C tickets", "fingerpost forget 1f0c2b7a9e4d5c63 -C tickets"),
    ),
    "import": (
        "import",
        (
            "fingerpost import tickets.xlsx -C tickets",
            "fingerpost import answers.csv -C tickets --teacher gpt-4.1-mini",
        ),
    ),
    "generate": (
        "generate",
        ("fingerpost generate tickets --count 400 --budget 5", "fingerpost generate tickets --from-errors"),
    ),
    "label": ("label", ("fingerpost label tickets --budget 5", "fingerpost label tickets --again doubtful --limit 50")),
    "ui": ("ui", ("fingerpost ui tickets", "fingerpost ui tickets --host 0.0.0.0 --double 0.1")),
    "review": (
        "better-than-the-teacher",
        ("fingerpost review tickets", "fingerpost review tickets --export queue.csv"),
    ),
    "define": ("better-than-the-teacher", ("fingerpost define tickets", "fingerpost define tickets --write --yes")),
    "export": ("export", ("fingerpost export tickets", "fingerpost export tickets --train train.jsonl --labels human")),
    "costs": ("generate", ("fingerpost costs tickets", "fingerpost costs tickets --release")),
    "train": ("train", ("fingerpost train tickets.csv -o models/tickets", "fingerpost train tickets")),
    "evaluate": (
        "evaluate",
        (
            "fingerpost evaluate models/tickets new.csv --html report.html",
            "fingerpost evaluate tickets --cascade --accuracy 0.95",
        ),
    ),
    "predict": (
        "predict",
        (
            'fingerpost predict models/tickets "where is my parcel?"',
            "fingerpost predict models/tickets new.csv -o answers.csv",
        ),
    ),
    "tone": (
        "tone",
        (
            "fingerpost tone init voice --texts articles --base SmolLM2-360M-Instruct.gguf",
            "fingerpost tone requests voice --budget 5",
        ),
    ),
    "serve": ("serve", ("fingerpost serve models/tickets", "fingerpost serve tickets --accuracy 0.95 --budget 5")),
    "decisions": (
        "proxy",
        ("fingerpost decisions --data served", "fingerpost decisions route-message --mode canary --share 0.05"),
    ),
    "keys": ("serve", ("fingerpost keys add my-application", "fingerpost keys list")),
    "docs": ("README", ("fingerpost docs", "fingerpost docs train")),
}
"""By command: its page of the docs, and its examples."""


def epilog(command: str) -> str:
    """The text below the options; click keeps its line breaks."""
    page, examples = EXAMPLES[command]
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExamples:\n{lines}\n\n\b\nMore: fingerpost docs {page}"
