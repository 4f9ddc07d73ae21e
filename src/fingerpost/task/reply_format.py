"""The form of a classifier's replies: the constant text around the label, found in training data and used to answer.

In chat JSONL for a classifier, every reply is the same text around one value that varies: `{"action": "refund"}`, a bare
label, an integer code, `<label>billing</label>`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os.path import commonprefix
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict

from fingerpost.core.errors import InputError
from fingerpost.core.text import humanise, shorten
from fingerpost.core.types import Conversation, Label, Message
from fingerpost.task.replies import parse, resolve
from fingerpost.task.settings import Task


class ReplyTemplate(BaseModel):
    """How a reply names its label: `before`, the name or code, `after`. In JSON, a text stands in quotes."""

    model_config = ConfigDict(frozen=True)

    before: str = ""
    after: str = ""
    json_value: bool = False
    codes: bool = False


class UserTemplate(BaseModel):
    """The constant text around what users say, where the application writes its prompt into the user's turn."""

    model_config = ConfigDict(frozen=True)

    before: str = ""
    after: str = ""

    def inside(self, text: str) -> str:
        """The text without its frame; as it is where it has none."""
        found = text.strip()
        if not (found.startswith(self.before) and found.endswith(self.after)):
            return text
        return found[len(self.before) : len(found) - len(self.after)].strip() or text


MOST_LABELS = 1_000

REPEATED = 0.5  # of a classifier's replies no more than this share may be different ones

SHOWN = 3

LEAST_FRAME = 24  # characters around all the users' texts that are taken for a prompt

_OPENS = r":=>\"'`(\[{|\])}#"  # what a label or text can stand behind

_CLOSES = r"<\"'`)\]}|.;!\[({#"  # and before

Value: TypeAlias = str | int


class NoClassification(InputError):
    """The replies are no labels. Says what was found, and what it would take."""


def label_in(form: ReplyTemplate, task: Task, reply: str) -> str | None:
    """The name of the label that a reply names: in this form, or in one that `prompt.parse` takes."""
    return resolve(task, value_in(form, reply)) or parse(task, reply)


def find_user_template(texts: Sequence[str]) -> UserTemplate:
    """What all texts begin and end with, where that is so long that it is a prompt around what users say."""
    before, after = _shared([text.strip() for text in texts])
    opening = re.match(rf".*[{_OPENS}\s]", before, re.DOTALL)
    closing = re.search(rf"[{_CLOSES}\s].*", after, re.DOTALL)
    found = UserTemplate(before=opening[0] if opening else "", after=closing[0] if closing else "")
    return found if len(found.before) + len(found.after) >= LEAST_FRAME else UserTemplate()


def without_template(messages: Conversation, frame: UserTemplate) -> Conversation:
    """The conversation, its last turn without the frame."""
    *earlier, last = messages
    return (*earlier, Message(last.role, frame.inside(last.content)))


def _shared(texts: Sequence[str]) -> tuple[str, str]:
    """The longest text that all begin with, and of the rest the longest that all end with."""
    before = commonprefix(texts)  # noqa: RUF071 - by characters is what is meant
    turned = [text[len(before) :][::-1] for text in texts]
    return before, commonprefix(turned)[::-1]  # noqa: RUF071


def render(form: ReplyTemplate, value: Value) -> str:
    """The reply that names the value."""
    return f"{form.before}{json.dumps(value, ensure_ascii=False) if form.json_value else value}{form.after}"


def value_in(form: ReplyTemplate, reply: str) -> Value | None:
    """The value that a reply in this form names, or None."""
    text = reply.strip()
    if not (text.startswith(form.before) and text.endswith(form.after)):
        return None
    middle = text[len(form.before) : len(text) - len(form.after)]
    if not form.json_value:
        return middle.strip() or None
    try:
        value = json.loads(middle)
    except ValueError:
        return None
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def find_reply_template(replies: Sequence[str]) -> tuple[ReplyTemplate, str, list[Value]]:
    """The constant text around the one value that varies; the value's field in JSON; and each reply's value.

    Raises:
        NoClassification: there is none, or its values are not few enough to be labels.
    """
    objects = [_object(reply) for reply in replies]
    if all(each is not None for each in objects):
        form, field, values = _json_form(replies, [each for each in objects if each is not None])
    else:
        before, after = _constant(replies)
        form, field = ReplyTemplate(before=before, after=after), "action"
        values = [str(value_in(form, reply) or "") for reply in replies]
        if any(not value for value in values):
            form, values = ReplyTemplate(), list(replies)
        if all(re.fullmatch(r"0|-?[1-9]\d{0,9}", str(value)) for value in values):
            values = [int(value) for value in values]
    _check(values)
    return form, field, values


def _object(reply: str) -> dict[str, Any] | None:
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _json_form(replies: Sequence[str], objects: Sequence[dict[str, Any]]) -> tuple[ReplyTemplate, str, list[Value]]:
    fields = [dict(_leaves(each)) for each in objects]
    paths = list(fields[0])
    if any(set(each) != set(paths) for each in fields):
        shapes = Counter(tuple(sorted(map(_dotted, each))) for each in fields)
        found = "; ".join(f"{n} with {', '.join(shape) or 'none'}" for shape, n in shapes.most_common(SHOWN))
        raise NoClassification(
            f"the replies are JSON with different fields ({found}); give all of them the same fields"
        )
    varying = [path for path in paths if len({json.dumps(each[path]) for each in fields}) > 1]
    if len(varying) > 1:
        found = ", ".join(f"{_dotted(path)} ({len({json.dumps(e[path]) for e in fields})} values)" for path in varying)
        raise NoClassification(
            f"{len(varying)} fields of the replies vary: {found}; a classifier's vary in one: leave the others out"
        )
    if not varying:
        raise NoClassification(f"all replies say the same, {shorten(replies[0])}; at least two labels are needed")
    path = varying[0]
    values = [each[path] for each in fields]
    if any(isinstance(value, bool) or not isinstance(value, str | int) for value in values):
        raise NoClassification(f"the field {_dotted(path)} must be a text or an integer in each reply")
    return _around(replies, objects, path, values), str(path[-1]), values


def _around(
    replies: Sequence[str], objects: Sequence[dict[str, Any]], path: tuple[str, ...], values: Sequence[Value]
) -> ReplyTemplate:
    """The text before and after the value: as most replies spell it, else as plain JSON."""
    forms: Counter[ReplyTemplate] = Counter()
    for reply, value in list(zip(replies, values, strict=True))[:100]:
        spelt = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
        for each in spelt:
            if reply.count(each) == 1:
                before, after = reply.split(each)
                forms[ReplyTemplate(before=before, after=after, json_value=True)] += 1
                break
    for form, _ in forms.most_common():
        if value_in(form, replies[0]) == values[0] or _object(render(form, values[0])) == objects[0]:
            return form
    mark = "\x00"
    before, after = json.dumps(_with(objects[0], path, mark), ensure_ascii=False).split(json.dumps(mark))
    return ReplyTemplate(before=before, after=after, json_value=True)


def _leaves(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, each in value.items():
        if isinstance(each, dict) and each:
            yield from _leaves(each, (*path, key))
        else:
            yield (*path, key), each


def _with(value: dict[str, Any], path: tuple[str, ...], leaf: Value) -> dict[str, Any]:
    inner: Any = leaf if len(path) == 1 else _with(value[path[0]], path[1:], leaf)
    return {**value, path[0]: inner}


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _constant(replies: Sequence[str]) -> tuple[str, str]:
    """What all replies begin and end with, if that is more than a word that the labels happen to share."""
    before, after = _shared(replies)
    opening = re.match(rf".*[{_OPENS}\n][^\S\n]*", before, re.DOTALL)
    closing = re.search(rf"[{_CLOSES}\n].*", after, re.DOTALL)
    return (opening[0] if opening else ""), (closing[0] if closing else "")


def _check(values: Sequence[Value]) -> None:
    counts = Counter(values)
    if len(counts) < 2:
        raise NoClassification(f"all {len(values)} replies say the same; at least two labels are needed")
    if len(counts) > min(MOST_LABELS, max(2, REPEATED * len(values))):
        found = "; ".join(repr(shorten(str(value), 40)) for value in list(counts)[:SHOWN])
        raise NoClassification(
            f"the {len(values)} replies hold {len(counts)} different values ({found}; ...): this looks like free text. "
            "A classifier is trained here: it takes replies that are the same but for one label, and more rows than labels"
        )


def labels_of(values: Iterable[Value], system: str) -> dict[Value, Label]:
    """A label for each value, described as the system prompt lists it.

    A line such as `- get_payslip: asks for a payslip` describes the label; `- 3: get_payslip: asks for ...` also gives
    the code 3 its name. An integer that is nowhere named is name and code.
    """
    lines = [line for each in system.splitlines() if (line := _listed(each))]
    found: dict[Value, Label] = {}
    taken: set[str] = set()
    for value in sorted(set(values), key=lambda each: (isinstance(each, str), each)):
        text = next((rest for head, rest in lines if head == str(value)), "")
        if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
            found[value] = Label(name=value, description=text or humanise(value))
            continue
        name, _, rest = text.partition(":")
        named = bool(re.fullmatch(r"[\w\-./ ]{1,60}", name)) and name not in taken and (bool(rest) or " " not in name)
        name = name.strip() if named else str(value)
        taken.add(name)
        found[value] = Label(name=name, description=(rest.strip() if named else text) or humanise(name), code=value)
    return found


def _listed(line: str) -> tuple[str, str] | None:
    """A line of a list as (what is listed, what is said of it)."""
    match = re.match(
        r"""\s*(?:[-*•+]\s+|\(?\d+[.)]\s+)?[`"'*]*(?P<head>[^\s`"'*:=][^`"':=]*?)[`"'*]*\s*(?::|=|\s[-–—]+\s)\s*(?P<rest>.*)""",
        line,
    )
    return (match["head"].strip(), match["rest"].strip().strip('",')) if match else None
