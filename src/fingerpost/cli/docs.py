"""The command `docs`: the pages of the documentation, in the terminal."""

from __future__ import annotations

import difflib
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from fingerpost.core.errors import InputError

SOURCE = Path(__file__).parents[3] / "docs"
"""Where the pages are in a clone; an installed package has a copy."""


def docs(
    page: Annotated[str, typer.Argument(help="The page, such as train or serve; without it, all pages.")] = "README",
    plain: Annotated[bool, typer.Option("--plain", help="Print the page's Markdown as it is.")] = False,
) -> None:
    """Show a page of the documentation."""
    folder = _folder()
    pages = sorted(file.stem for file in folder.glob("*.md"))
    name = page.removeprefix("docs/").removesuffix(".md")
    if name not in pages:
        close = difflib.get_close_matches(name, pages, n=1)
        hint = f"did you mean {close[0]}?" if close else f"write one of {', '.join(pages)}"
        raise InputError(f"there is no page '{page}'; {hint}")
    text = (folder / f"{name}.md").read_text(encoding="utf-8")
    if plain or not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(text, hyperlinks=False), width=min(console.width, 100))


def _folder() -> Path:
    """Where the pages are."""
    packaged = Path(str(files("fingerpost"))) / "docs"
    return packaged if packaged.is_dir() else SOURCE
