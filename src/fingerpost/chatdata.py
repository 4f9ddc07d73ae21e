"""Chat JSONL for fine-tuning, read as what it is where it trains a classifier: conversations and labels.

In such a file every assistant's reply is the same text around one value that varies: `{"action": "get_payslip"}`, a bare
label, an integer code, `<label>billing</label>`. That text is found here, so that a student can answer in it; and what
the system prompt says of each label.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any, TypeAlias

from fingerpost.errors import InputError
from fingerpost.prompt import parse, resolve
from fingerpost.text import content_text, preview, question_id, spoken
from fingerpost.types import Conversation, Example, Frame, Label, Message, ReplyForm, Task

LEAST_ROWS = 10
MOST_LABELS = 1_000
REPEATED = 0.5  # of a classifier's replies no more than this share may be different ones
SHOWN = 3
LEAST_FRAME = 24  # characters around all the users' texts that are taken for a prompt
_OPENS = r":=>\"'`(\[{|\])}#"  # what a label or text can stand behind
_CLOSES = r"<\"'`)\]}|.;!\[({#"  # and before

Value: TypeAlias = str | int


class NoClassification(InputError):
    """The replies are no labels. Says what was found, and what it would take."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the file: the conversation, the reply to learn, and the system prompt."""

    line: int
    messages: Conversation
    reply: str
    system: str


@dataclass(frozen=True, slots=True)
class ChatData:
    """The file's rows as examples of a task, and the form of its replies. `system` is the most usual system prompt.

    The examples' last turns are without their `frame`.
    """

    task: Task
    form: ReplyForm
    frame: Frame
    system: str
    examples: list[Example]


def read_chat(path: Path, least: int = LEAST_ROWS) -> list[Row]:
    """All lines of a chat JSONL file.

    Of each conversation the last assistant's message is learnt whose `weight` is not 0, with the turns before it.

    Raises:
        InputError: a line that is no conversation with an assistant's reply, or fewer than `least` lines.
    """
    rows: list[Row] = []
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            if raw.strip():
                try:
                    rows.append(_row(number, json.loads(raw.decode("utf-8-sig"))))
                except UnicodeDecodeError:
                    raise InputError(f"line {number} is not UTF-8; save the file as UTF-8") from None
                except (ValueError, RecursionError):
                    raise InputError(f"line {number} is not JSON; each line must be one JSON object") from None
    if len(rows) < least:
        raise InputError(f"the file has {len(rows)} examples, at least {least} are needed; add more lines")
    return rows


def _row(number: int, value: Any) -> Row:
    turns = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise InputError(f'line {number} has no list of messages; a line is {{"messages": [...]}}')
    system = "\n".join(
        content_text(turn.get("content")) for turn in turns if turn.get("role") in ("system", "developer")
    )
    spoken_turns = [turn for turn in turns if turn.get("role") in ("user", "assistant")]
    for end in range(len(spoken_turns) - 1, 0, -1):
        turn = spoken_turns[end]
        if turn["role"] == "assistant" and turn.get("weight") != 0 and spoken_turns[end - 1]["role"] == "user":
            reply = content_text(turn.get("content")).strip()
            if not reply:
                raise InputError(f"line {number}: the assistant's reply has no text; tool calls cannot be learnt")
            before = tuple(Message(each["role"], content_text(each.get("content"))) for each in spoken_turns[:end])
            return Row(number, before, reply, system)
    raise InputError(f"line {number} has no assistant's reply to a user's message; add the answer that is to be learnt")


def as_classification(rows: Sequence[Row], name: str) -> ChatData:
    """The rows as examples of a task.

    Raises:
        NoClassification: the replies are no labels.
    """
    form, field, values = find_form([row.reply for row in rows])
    system = Counter(row.system for row in rows).most_common(1)[0][0]
    labels = labels_of(values, system)
    form = form.model_copy(update={"codes": any(label.code is not None for label in labels.values())})
    task = Task(name=name, answer_field=field, labels=tuple(labels.values()))
    frame = find_frame([row.messages[-1].content for row in rows])
    return ChatData(task, form, frame, system, list(_examples(rows, values, labels, frame)))


def examples_of(rows: Sequence[Row], data: ChatData) -> tuple[list[Example], int]:
    """Further rows as examples of the same task, and how many did not fit: another form, or a label not seen there."""
    labels = {label.name: label for label in data.task.labels}
    found = [(row, label_in(data.form, data.task, row.reply)) for row in rows]
    fitting = [(row, name) for row, name in found if name is not None]
    examples = _examples([row for row, _ in fitting], [name for _, name in fitting], labels, data.frame)
    return list(examples), len(rows) - len(fitting)


def label_in(form: ReplyForm, task: Task, reply: str) -> str | None:
    """The name of the label that a reply names: in this form, or in one that `prompt.parse` takes."""
    return resolve(task, value_in(form, reply)) or parse(task, reply)


def _examples(
    rows: Sequence[Row], values: Sequence[Value], labels: Mapping[Any, Label], frame: Frame
) -> Iterator[Example]:
    for row, value in zip(rows, values, strict=True):
        messages = unframed(row.messages, frame)
        key = question_id(messages)
        yield Example(key, messages, {labels[value].name: 1.0}, group=key)


# --- the frame of the questions


def find_frame(texts: Sequence[str]) -> Frame:
    """What all texts begin and end with, where that is so long that it is a prompt around what users say."""
    before, after = _shared([text.strip() for text in texts])
    opening = re.match(rf".*[{_OPENS}\s]", before, re.DOTALL)
    closing = re.search(rf"[{_CLOSES}\s].*", after, re.DOTALL)
    found = Frame(before=opening[0] if opening else "", after=closing[0] if closing else "")
    return found if len(found.before) + len(found.after) >= LEAST_FRAME else Frame()


def unframed(messages: Conversation, frame: Frame) -> Conversation:
    """The conversation, its last turn without the frame."""
    *earlier, last = messages
    return (*earlier, Message(last.role, frame.inside(last.content)))


def _shared(texts: Sequence[str]) -> tuple[str, str]:
    """The longest text that all begin with, and of the rest the longest that all end with."""
    before = commonprefix(texts)  # noqa: RUF071 - by characters is what is meant
    turned = [text[len(before) :][::-1] for text in texts]
    return before, commonprefix(turned)[::-1]  # noqa: RUF071


# --- the form of the replies


def render(form: ReplyForm, value: Value) -> str:
    """The reply that names the value."""
    return f"{form.before}{json.dumps(value, ensure_ascii=False) if form.json_value else value}{form.after}"


def value_in(form: ReplyForm, reply: str) -> Value | None:
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


def find_form(replies: Sequence[str]) -> tuple[ReplyForm, str, list[Value]]:
    """The constant text around the one value that varies; the value's field in JSON; and each reply's value.

    Raises:
        NoClassification: there is none, or its values are not few enough to be labels.
    """
    objects = [_object(reply) for reply in replies]
    if all(each is not None for each in objects):
        form, field, values = _json_form(replies, [each for each in objects if each is not None])
    else:
        before, after = _constant(replies)
        form, field = ReplyForm(before=before, after=after), "action"
        values = [str(value_in(form, reply) or "") for reply in replies]
        if any(not value for value in values):
            form, values = ReplyForm(), list(replies)
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


def _json_form(replies: Sequence[str], objects: Sequence[dict[str, Any]]) -> tuple[ReplyForm, str, list[Value]]:
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
        raise NoClassification(f"all replies say the same, {preview(replies[0])}; at least two labels are needed")
    path = varying[0]
    values = [each[path] for each in fields]
    if any(isinstance(value, bool) or not isinstance(value, str | int) for value in values):
        raise NoClassification(f"the field {_dotted(path)} must be a text or an integer in each reply")
    return _around(replies, objects, path, values), str(path[-1]), values


def _around(
    replies: Sequence[str], objects: Sequence[dict[str, Any]], path: tuple[str, ...], values: Sequence[Value]
) -> ReplyForm:
    """The text before and after the value: as most replies spell it, else as plain JSON."""
    forms: Counter[ReplyForm] = Counter()
    for reply, value in list(zip(replies, values, strict=True))[:100]:
        spelt = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
        for each in spelt:
            if reply.count(each) == 1:
                before, after = reply.split(each)
                forms[ReplyForm(before=before, after=after, json_value=True)] += 1
                break
    for form, _ in forms.most_common():
        if value_in(form, replies[0]) == values[0] or _object(render(form, values[0])) == objects[0]:
            return form
    mark = "\x00"
    before, after = json.dumps(_with(objects[0], path, mark), ensure_ascii=False).split(json.dumps(mark))
    return ReplyForm(before=before, after=after, json_value=True)


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
        found = "; ".join(repr(preview(str(value), 40)) for value in list(counts)[:SHOWN])
        raise NoClassification(
            f"the {len(values)} replies hold {len(counts)} different values ({found}; ...): this looks like free text. "
            "A classifier is trained here: it takes replies that are the same but for one label, and more rows than labels"
        )


# --- the labels


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
            found[value] = Label(name=value, description=text or spoken(value))
            continue
        name, _, rest = text.partition(":")
        named = bool(re.fullmatch(r"[\w\-./ ]{1,60}", name)) and name not in taken and (bool(rest) or " " not in name)
        name = name.strip() if named else str(value)
        taken.add(name)
        found[value] = Label(name=name, description=(rest.strip() if named else text) or spoken(name), code=value)
    return found


def _listed(line: str) -> tuple[str, str] | None:
    """A line of a list as (what is listed, what is said of it)."""
    match = re.match(
        r"""\s*(?:[-*•+]\s+|\(?\d+[.)]\s+)?[`"'*]*(?P<head>[^\s`"'*:=][^`"':=]*?)[`"'*]*\s*(?::|=|\s[-–—]+\s)\s*(?P<rest>.*)""",
        line,
    )
    return (match["head"].strip(), match["rest"].strip().strip('",')) if match else None
