"""Detects the reply template of a classifier from its training data, and reads and writes replies with it.

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
from fingerpost.core.text import humanise, parse_json, shorten
from fingerpost.core.types import Conversation, Label, Message
from fingerpost.task.replies import parse, resolve
from fingerpost.task.settings import Task


class ReplyTemplate(BaseModel):
    """The constant text around the label of a reply.

    Attributes:
        before, after: text before and after the label.
        json_value: the label is a JSON value, so a string is quoted.
        codes: replies contain the label's code instead of its name.
    """

    model_config = ConfigDict(frozen=True)

    before: str = ""
    after: str = ""
    json_value: bool = False
    codes: bool = False


class UserTemplate(BaseModel):
    """The constant text around a user's message, for applications that put their prompt into the user's turn.

    Attributes:
        before, after: text before and after the user's own words.
    """

    model_config = ConfigDict(frozen=True)

    before: str = ""
    after: str = ""

    def inside(self, text: str) -> str:
        """The user's own words in a message; a message that does not match the template is returned unchanged."""
        found = text.strip()
        if not (found.startswith(self.before) and found.endswith(self.after)):
            return text
        return found[len(self.before) : len(found) - len(self.after)].strip() or text


MAX_LABELS = 1_000
MAX_UNIQUE_SHARE = 0.5  # with more distinct replies than this share of all, the replies are free text
MAX_EXAMPLES = 3  # values or fields listed in an error message
MIN_TEMPLATE_CHARACTERS = 24  # shorter constant text around user messages is a coincidence, not a prompt
_BEFORE_VALUE = r":=>\"'`(\[{|\])}#"  # characters that can come directly before a label or text
_AFTER_VALUE = r"<\"'`)\]}|.;!\[({#"  # characters that can come directly after it

Value: TypeAlias = str | int
"""A label as it appears in a reply: its name, or an integer code."""
Answer: TypeAlias = Value | list[Value]
"""What a reply says: one label, or a list of labels."""


class NoClassification(InputError):
    """The replies are not labels of a classifier. The message says what was found and what is expected."""


def json_template(field: str, codes: bool = False) -> ReplyTemplate:
    """Replies as a JSON object with one field, such as `{"action": "refund"}`."""
    before, after = json.dumps({field: "\x00"}, ensure_ascii=False).split(json.dumps("\x00"))
    return ReplyTemplate(before=before, after=after, json_value=True, codes=codes)


def label_in(template: ReplyTemplate, task: Task, reply: str) -> str | None:
    """The name of the label in a reply, or None. Replies may follow the template or any format that `parse` accepts."""
    return resolve(task, value_in(template, reply)) or parse(task, reply)


def find_user_template(texts: Sequence[str]) -> UserTemplate:
    """The longest constant text around all user messages.

    Returns:
        An empty template if the constant text is shorter than MIN_TEMPLATE_CHARACTERS.
    """
    before, after = _common_ends([text.strip() for text in texts])
    opening = re.match(rf".*[{_BEFORE_VALUE}\s]", before, re.DOTALL)
    closing = re.search(rf"[{_AFTER_VALUE}\s].*", after, re.DOTALL)
    found = UserTemplate(before=opening[0] if opening else "", after=closing[0] if closing else "")
    return found if len(found.before) + len(found.after) >= MIN_TEMPLATE_CHARACTERS else UserTemplate()


def without_template(messages: Conversation, template: UserTemplate) -> Conversation:
    """The conversation with the user template removed from its last turn."""
    *earlier, last = messages
    return (*earlier, Message(last.role, template.inside(last.content)))


def _common_ends(texts: Sequence[str]) -> tuple[str, str]:
    """The longest common prefix of the texts, and the longest common suffix of what remains."""
    before = commonprefix(texts)  # noqa: RUF071 - characters, not paths
    reversed_rests = [text[len(before) :][::-1] for text in texts]
    return before, commonprefix(reversed_rests)[::-1]  # noqa: RUF071


def render(template: ReplyTemplate, value: Answer) -> str:
    """The reply with this value, in the format of the template."""
    return f"{template.before}{json.dumps(value, ensure_ascii=False) if template.json_value else value}{template.after}"


def value_in(template: ReplyTemplate, reply: str) -> Answer | None:
    """The value in a reply that follows the template, or None if the reply does not follow it."""
    text = reply.strip()
    if not (text.startswith(template.before) and text.endswith(template.after)):
        return None
    middle = text[len(template.before) : len(text) - len(template.after)]
    if not template.json_value:
        return middle.strip() or None
    try:
        value = parse_json(middle)
    except ValueError:
        return None
    return value if _is_answer(value) else None


def _is_answer(value: Any) -> bool:
    """Whether a JSON value is a text or an integer, or a list of such values."""
    parts = value if isinstance(value, list) else [value]
    return all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts)


def find_reply_template(replies: Sequence[str]) -> tuple[ReplyTemplate, str, list[Answer]]:
    """Detect the constant text around the one value that varies between replies.

    Returns:
        The template; the name of the value's JSON field ("action" where replies are not JSON); and the value of each
        reply, in the order of the replies.

    Raises:
        NoClassification: no such value exists, or it has too many distinct values to be a label.
    """
    parsed = [_object(reply) for reply in replies]
    objects = [value for value in parsed if value is not None]
    if len(objects) == len(parsed):
        template, field, values = _json_template(replies, objects)
    else:
        before, after = _constant_text(replies)
        template, field = ReplyTemplate(before=before, after=after), "action"
        values = [str(value_in(template, reply) or "") for reply in replies]
        if any(not value for value in values):
            template, values = ReplyTemplate(), list(replies)
        if all(re.fullmatch(r"0|-?[1-9]\d{0,9}", str(value)) for value in values):
            values = [int(str(value)) for value in values]
    _require_labels(values)
    return template, field, values


def _object(reply: str) -> dict[str, Any] | None:
    """A reply as a JSON object, or None."""
    try:
        value = parse_json(reply)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _json_template(
    replies: Sequence[str], objects: Sequence[dict[str, Any]]
) -> tuple[ReplyTemplate, str, list[Answer]]:
    fields = [dict(_leaves(value)) for value in objects]
    paths = list(fields[0])
    if any(set(leaves) != set(paths) for leaves in fields):
        shapes = Counter(tuple(sorted(map(_dotted, leaves))) for leaves in fields)
        found = "; ".join(f"{n} with {', '.join(shape) or 'none'}" for shape, n in shapes.most_common(MAX_EXAMPLES))
        raise NoClassification(
            f"the replies are JSON with different fields ({found}); give all of them the same fields"
        )
    varying = [path for path in paths if len({json.dumps(leaves[path]) for leaves in fields}) > 1]
    if len(varying) > 1:
        found = ", ".join(
            f"{_dotted(path)} ({len({json.dumps(leaves[path]) for leaves in fields})} values)" for path in varying
        )
        raise NoClassification(
            f"{len(varying)} fields of the replies vary: {found}; only one may vary: remove the others"
        )
    if not varying:
        raise NoClassification(
            f"all replies say the same, {shorten(replies[0])}; give replies with at least two labels"
        )
    path = varying[0]
    values = [leaves[path] for leaves in fields]
    lists = sum(isinstance(value, list) for value in values)
    if not all(_is_answer(value) for value in values) or lists not in (0, len(values)):
        raise NoClassification(
            f"the field {_dotted(path)} must be a text or an integer in every reply, or a list of them in every reply; "
            "correct the other replies"
        )
    return _json_surroundings(replies, objects, path, values), str(path[-1]), values


def split_by_field(replies: Sequence[str]) -> tuple[dict[str, Any], dict[tuple[str, ...], list[str]]] | None:
    """Replies in which several fields vary, each as replies of its own.

    Returns:
        The JSON schema of the replies; and by the path of each field that varies, replies with that field alone, in the
        order of the replies. None unless all replies are JSON objects with the same fields, and several of them hold labels.
    """
    objects = [_object(reply) for reply in replies]
    if not objects or not all(objects):
        return None
    fields = [dict(_leaves(value)) for value in objects if value is not None]
    if any(set(leaves) != set(fields[0]) for leaves in fields):
        return None
    values = {path: [leaves[path] for leaves in fields] for path in fields[0]}
    varying = {path: found for path, found in values.items() if len({json.dumps(one) for one in found}) > 1}
    for found in varying.values():
        if any(isinstance(one, list) or not _is_answer(one) for one in found):
            return None
        if len(set(found)) > min(MAX_LABELS, max(2, MAX_UNIQUE_SHARE * len(found))):
            return None
    if len(varying) < 2:
        return None
    schema: dict[str, Any] = objects[0] or {}
    for path, found in values.items():
        part = {"enum": sorted(set(found), key=str)} if path in varying else {"const": found[0]}
        schema = _replace_leaf(schema, path, part)
    return _schema_of(schema, set(values)), {
        path: [json.dumps({path[-1]: one}, ensure_ascii=False) for one in found] for path, found in varying.items()
    }


def _schema_of(value: dict[str, Any], leaves: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of an object whose leaves are schemas already."""
    properties = {
        name: part if (*path, name) in leaves else _schema_of(part, leaves, (*path, name))
        for name, part in value.items()
    }
    return {"type": "object", "properties": properties, "required": list(value), "additionalProperties": False}


def value_at(reply: str, path: tuple[str, ...]) -> str:
    """A reply with the last field of the path alone; the reply itself if it has no such field."""
    found: Any = _object(reply)
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return reply if found is None else json.dumps({path[-1]: found}, ensure_ascii=False)


def _json_surroundings(
    replies: Sequence[str], objects: Sequence[dict[str, Any]], path: tuple[str, ...], values: Sequence[Answer]
) -> ReplyTemplate:
    """The text before and after the value: as in most replies, else as plain JSON."""
    templates: Counter[ReplyTemplate] = Counter()
    for reply, value in list(zip(replies, values, strict=True))[:100]:
        spellings = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
        for spelling in spellings:
            if reply.count(spelling) == 1:
                before, after = reply.split(spelling)
                templates[ReplyTemplate(before=before, after=after, json_value=True)] += 1
                break
    for template, _ in templates.most_common():
        if value_in(template, replies[0]) == values[0] or _object(render(template, values[0])) == objects[0]:
            return template
    placeholder = "\x00"
    before, after = json.dumps(_replace_leaf(objects[0], path, placeholder), ensure_ascii=False).split(
        json.dumps(placeholder)
    )
    return ReplyTemplate(before=before, after=after, json_value=True)


def _leaves(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, child in value.items():
        if isinstance(child, dict) and child:
            yield from _leaves(child, (*path, key))
        else:
            yield (*path, key), child


def _replace_leaf(value: dict[str, Any], path: tuple[str, ...], leaf: Any) -> dict[str, Any]:
    inner: Any = leaf if len(path) == 1 else _replace_leaf(value[path[0]], path[1:], leaf)
    return {**value, path[0]: inner}


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _constant_text(replies: Sequence[str]) -> tuple[str, str]:
    """The common prefix and suffix of the replies, cut at punctuation, so that letters shared by all labels stay in the value."""
    before, after = _common_ends(replies)
    opening = re.match(rf".*[{_BEFORE_VALUE}\n][^\S\n]*", before, re.DOTALL)
    closing = re.search(rf"[{_AFTER_VALUE}\n].*", after, re.DOTALL)
    return (opening[0] if opening else ""), (closing[0] if closing else "")


def single_values(answers: Iterable[Answer]) -> list[Value]:
    """The labels that these answers name, with repeats."""
    return [part for answer in answers for part in (answer if isinstance(answer, list) else [answer])]


def _require_labels(answers: Sequence[Answer]) -> None:
    """Raises NoClassification if the values are too few or too many to be labels."""
    values = single_values(answers)
    counts = Counter(values)
    if len(counts) < 2:
        raise NoClassification(f"all {len(values)} replies say the same; give replies with at least two labels")
    if len(counts) > min(MAX_LABELS, max(2, MAX_UNIQUE_SHARE * len(values))):
        found = "; ".join(repr(shorten(str(value), 40)) for value in list(counts)[:MAX_EXAMPLES])
        raise NoClassification(
            f"the {len(values)} replies have {len(counts)} different values ({found}; ...): this looks like free text. "
            "Only classifiers can be trained; give replies that differ in one label only, and more rows than labels"
        )


def labels_of(values: Iterable[Value], system: str) -> dict[Value, Label]:
    """A label for each distinct value, described by the system prompt's list of labels.

    The line `- get_payslip: asks for a payslip` describes the label `get_payslip`; `- 3: get_payslip: asks for ...` also
    names the label with the code 3. An integer that no line names is both name and code of its label. A label without a
    description gets its name written as words.
    """
    items = [item for line in system.splitlines() if (item := list_item(line))]
    found: dict[Value, Label] = {}
    taken: set[str] = set()
    for value in sorted(set(values), key=lambda value: (isinstance(value, str), value)):
        text = next((rest for head, rest in items if head == str(value)), "")
        if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
            found[value] = Label(name=value, description=text or humanise(value))
            continue
        name, _, rest = text.partition(":")
        named = bool(re.fullmatch(r"[\w\-./ ]{1,60}", name)) and name not in taken and (bool(rest) or " " not in name)
        name = name.strip() if named else str(value)
        taken.add(name)
        found[value] = Label(name=name, description=(rest.strip() if named else text) or humanise(name), code=value)
    return found


def list_item(line: str) -> tuple[str, str] | None:
    """A line of a list as (name, description), or None if it is not a list item. White space is collapsed.

    Names have up to 200 characters, so that the time stays linear.
    """
    line = " ".join(line.split())
    match = re.match(
        r"""\s*(?:[-*•+]\s+|\(?\d+[.)]\s+)?[`"'*]*(?P<head>[^\s`"'*:=][^`"':=]{0,200}?)[`"'*]*\s*(?::|=|\s[-–—]+\s)\s*(?P<rest>.*)""",
        line,
    )
    return (match["head"].strip(), match["rest"].strip().strip('",')) if match else None
