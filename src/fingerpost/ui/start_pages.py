"""The way in without a project: drop a file, see its columns and labels, describe the labels, name the teacher."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from starlette.datastructures import UploadFile
from starlette.responses import Response
from starlette.routing import Route

from fingerpost.core.errors import InputError
from fingerpost.core.text import humanise
from fingerpost.data.files import columns, read_rows
from fingerpost.data.rows import LABEL_COLUMNS, TEXT_COLUMNS
from fingerpost.task.loader import TASK_FILE, load_task
from fingerpost.task.template import render_task
from fingerpost.ui.pages import Pages, Visit

SHOWN = 5
MOST_LABELS = 500
FALLBACKS = ("other", "out_of_scope", "oos", "none", "unknown", "fallback")
"""Names of labels that are for everything else."""
MODEL = "gpt-4.1-mini"


class StartPages:
    """The pages before there is a project.

    Args:
        folder: of the new project.
        on_created: is called when task.toml is written.
    """

    def __init__(self, pages: Pages, folder: Path, on_created: Callable[[], None]) -> None:
        self._pages, self._folder, self._on_created = pages, folder, on_created

    def routes(self) -> list[Route]:
        """All routes."""
        get, post = self._pages.get, self._pages.post
        return [
            get("/", self.show),
            post("/start", self.upload),
            get("/start", self.describe),
            post("/create", self.create),
        ]

    def show(self, visit: Visit) -> Response:
        """Where a file is dropped."""
        return self._pages.render(visit, "start", folder=self._folder)

    def upload(self, visit: Visit) -> Response:
        """Take a file into the project's folder."""
        file = visit.form.get("file")
        if not isinstance(file, UploadFile) or not file.filename:
            raise InputError(
                "choose a file of messages: CSV, Excel, JSONL, Parquet, or a text file with a message on each line"
            )
        name = re.sub(r"[^\w.\-]+", "_", Path(file.filename).name).lstrip(".") or "messages.csv"
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f"upload-{secrets.token_hex(4)}{Path(name).suffix}"
        try:
            with draft.open("wb") as stream:
                shutil.copyfileobj(file.file, stream)
            columns(draft)
            if next(iter(read_rows(draft)), None) is None:
                raise InputError("the file is empty; choose another one")
            target = self._free(name)
            draft.rename(target)
        except InputError as error:
            raise InputError(str(error).replace(str(draft), name)) from None
        finally:
            draft.unlink(missing_ok=True)
        return self._pages.go("/start", file=target.name)

    def _free(self, name: str) -> Path:
        """A path for a file of this name that nothing is at."""
        path = Path(name)
        names = [name, *(f"{path.stem}-{number}{path.suffix}" for number in range(2, 1_000))]
        return next(place for one in names if not (place := self._folder / one).exists())

    def describe(self, visit: Visit) -> Response:
        """The columns and labels of a file, to check and to complete."""
        file = self._file(visit.query.get("file", ""))
        names = columns(file) or ["text"]
        lower = {name.lower(): name for name in names}
        text = visit.query.get("text") or next((lower[usual] for usual in TEXT_COLUMNS if usual in lower), names[0])
        usual_label = next((lower[usual] for usual in LABEL_COLUMNS if usual in lower), "")
        label = visit.query.get("label", usual_label)
        rows = list(islice(read_rows(file), SHOWN))
        counts = self._labels(file, label) if label else Counter()
        return self._pages.render(
            visit, "start_labels", file=file.name, names=names, text=text, label=label, project=self._folder.resolve().name,
            rows=[[str(row.values.get(name) or "") for name in names] for row in rows],
            labels="\n".join(f"{name}: {humanise(name)}" for name in sorted(counts)), counts=len(counts), model=MODEL,
            key_is_set=bool(os.environ.get("OPENAI_API_KEY")),
        )  # fmt: skip

    def create(self, visit: Visit) -> Response:
        """Write task.toml."""
        if (self._folder / TASK_FILE).exists():
            raise InputError("this folder has a task.toml already; reload the page")
        file = self._file(visit.field("file"))
        labels = described(visit.field("labels"))
        data = {"file": file.name, "source": "user", "text": visit.field("text"), "label": visit.field("label")}
        content = render_task(
            visit.field("name").strip() or self._folder.resolve().name,
            labels,
            instructions=visit.field("instructions").strip(),
            fallback=next((name for name in labels if name.lower() in FALLBACKS), None),
            model=visit.field("model").strip() or MODEL,
            base_url=visit.field("base_url").strip() or None,
            data=[{key: value for key, value in data.items() if value}],
        )
        if key_env := visit.field("key_env").strip():
            content = content.replace(
                'key_env = "OPENAI_API_KEY"', f'key_env = "{re.sub("[^A-Za-z0-9_]", "", key_env)}"'
            )
        draft = self._folder / f"{TASK_FILE}.draft"
        draft.write_text(content, encoding="utf-8")
        try:
            load_task(draft)
        except InputError as error:
            raise InputError(str(error).replace(str(draft), "the task")) from None
        draft.rename(self._folder / TASK_FILE)
        self._on_created()
        self._pages.say(visit, "The project is there")
        return self._pages.go("/first")

    def _file(self, name: str) -> Path:
        """A file that was dropped.

        Raises:
            InputError: there is none.
        """
        file = self._folder / Path(name).name
        if not name or not file.is_file():
            raise InputError("there is no such file; drop it again")
        return file

    def _labels(self, file: Path, column: str) -> Counter[str]:
        """The labels in a column.

        Raises:
            InputError: there are too many.
        """
        counts = Counter(
            str(value).strip() for row in read_rows(file) if (value := row.values.get(column)) not in (None, "")
        )
        if len(counts) > MOST_LABELS:
            raise InputError(f"the column {column} has {len(counts):,} different values, so it is no column of labels")
        return counts


def described(text: str) -> dict[str, str]:
    """Labels with their descriptions from lines `name: description`.

    Raises:
        InputError: there are fewer than two.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, *description = re.split(r":(?:\s+|$)", line, maxsplit=1)
        if name.strip():
            found[name.strip()] = "".join(description).strip()
    if len(found) < 2:
        raise InputError(
            "name at least two labels, each on a line of its own, such as 'billing: invoices and payments'"
        )
    return found
