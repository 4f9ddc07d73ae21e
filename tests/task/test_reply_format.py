"""Finding the label in chat JSONL: the form of the replies, the labels, what is no classification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.core.errors import InputError
from fingerpost.core.types import Message
from fingerpost.data.chat import Row, as_classification, examples_of, read_chat
from fingerpost.task.reply_format import (
    NoClassification,
    ReplyTemplate,
    UserTemplate,
    find_reply_template,
    find_user_template,
    label_in,
    labels_of,
    render,
    split_by_field,
    value_at,
    value_in,
)

NAMES = ["get_payslip", "get_policy", "other"]


def write(file: Path, replies: list[str], system: str = "", texts: list[str] | None = None) -> Path:
    rows = []
    for i, reply in enumerate(replies):
        text = texts[i] if texts else f"question {i}"
        rows.append({"messages": [{"role": "system", "content": system}, {"role": "user", "content": text},
                                  {"role": "assistant", "content": reply}]})  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        ('{"action": "%s"}', '{"action": ', "}"),
        ('{"v":1,"x":{"label":"%s"}}', '{"v":1,"x":{"label":', "}}"),
        ('{ "label":"%s", "schema": "2" }', '{ "label":', ', "schema": "2" }'),
        ("%s", "", ""),
        ("Category: %s.", "Category: ", "."),
        ("<label>%s</label>", "<label>", "</label>"),
        ("[%s]", "[", "]"),
        ('"%s"', '"', '"'),
        ("[[ ## label ## ]]\n%s\n\n[[ ## completed ## ]]", "[[ ## label ## ]]\n", "\n\n[[ ## completed ## ]]"),
    ],
)
def test_the_constant_text_around_the_label(template: str, before: str, after: str) -> None:
    replies = [template % NAMES[i % 3] for i in range(30)]
    form, _, values = find_reply_template(replies)
    assert (form.before, form.after) == (before, after)
    assert values == [NAMES[i % 3] for i in range(30)]
    assert [render(form, value) for value in values] == replies


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
        min_size=2,
        max_size=8,
        unique=True,
    ),
    st.sampled_from(["action", "label", "näme"]),
    st.booleans(),
)
def test_a_json_reply_is_given_back_as_it_was(labels: list[str], field: str, ascii_only: bool) -> None:
    replies = [json.dumps({field: labels[i % len(labels)]}, ensure_ascii=ascii_only) for i in range(4 * len(labels))]
    form, found, values = find_reply_template(replies)
    assert found == field
    assert [value_in(form, reply) for reply in replies] == values
    assert [json.loads(render(form, value)) for value in values] == [json.loads(reply) for reply in replies]


def test_integers_stay_integers_and_texts_texts() -> None:
    form, _, values = find_reply_template([json.dumps({"action": i % 4}) for i in range(40)])
    assert set(values) == {0, 1, 2, 3}
    assert render(form, 2) == '{"action": 2}'
    form, _, values = find_reply_template([json.dumps({"action": str(i % 4)}) for i in range(40)])
    assert set(values) == {"0", "1", "2", "3"}
    assert render(form, "2") == '{"action": "2"}'


def test_codes_get_their_names_from_the_prompt() -> None:
    system = "Actions:\n- 0: get_payslip: asks for a payslip\n- 1: get_policy\n* 2 - whatever else there is\n"
    labels = labels_of([0, 1, 2, 3], system)
    assert [(each.name, each.description, each.code) for each in labels.values()] == [
        ("get_payslip", "asks for a payslip", 0),
        ("get_policy", "get policy", 1),
        ("2", "whatever else there is", 2),
        ("3", "3", 3),
    ]


@pytest.mark.parametrize(
    "line",
    ["- billing: about money", "* billing - about money", "1. billing: about money", "`billing`: about money",
     '"billing": "about money",', "**billing**: about money", "billing = about money"],
)  # fmt: skip
def test_descriptions_are_read_from_lists_of_many_kinds(line: str) -> None:
    assert labels_of(["billing"], f"Choose.\n{line}\n")["billing"].description == "about money"


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        ([f"Sure, number {i} it is" for i in range(30)], "free text"),
        (['{"action": "a"}'] * 30, "all replies say the same"),
        (["a"] * 30, "all 30 replies say the same"),
        (
            [json.dumps({"reason": f"r{i}", "action": NAMES[i % 3]}) for i in range(30)],
            "reason (30 values), action (3 values)",
        ),
        ([json.dumps({"action": NAMES[i % 3]} | ({"x": 1} if i % 2 else {})) for i in range(30)], "different fields"),
        ([json.dumps({"action": [[i % 3]]}) for i in range(30)], "must be a text or an integer"),
    ],
)
def test_what_is_no_classification_is_said_with_what_it_would_take(replies: list[str], says: str) -> None:
    with pytest.raises(NoClassification, match=says.replace("(", r"\(").replace(")", r"\)")):
        find_reply_template(replies)


def test_mixed_spellings_of_one_json_form_are_one_form() -> None:
    plain = [json.dumps({"action": NAMES[i % 3]}) for i in range(40)]
    replies = [each if i % 4 else each.replace(" ", "") for i, each in enumerate(plain)]
    form, _, values = find_reply_template(replies)
    assert form.before == '{"action": '
    assert values == [NAMES[i % 3] for i in range(40)]


def test_history_weights_and_parts_are_read(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "developer", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "first"}]},
            {"role": "assistant", "content": "talk", "weight": 0},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": "billing", "weight": 1},
            {"role": "user", "content": "third"},
            {"role": "assistant", "content": "never learnt", "weight": 0},
        ]
    }
    file = tmp_path / "f.jsonl"
    file.write_text("\ufeff" + "\n".join([json.dumps(row)] * 10))
    first = read_chat(file)[0]
    assert first.system == "S"
    assert first.reply == "billing"
    assert first.messages == (Message("user", "first"), Message("assistant", "talk"), Message("user", "second"))


@pytest.mark.parametrize(
    ("line", "says"),
    [("nonsense", "is not JSON"), ("[1]", "has no list of messages"), ('{"messages": [{"role": "user", "content": "x"}]}', "no assistant"),
     ('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": null, "tool_calls": []}]}', "neither text nor a tool call")],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = write(tmp_path / "f.jsonl", ["a", "b"] * 10)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(InputError, match=f"line 21.*{says}"):
        read_chat(file)


def test_too_few_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="9 examples, at least 10"):
        read_chat(write(tmp_path / "f.jsonl", ["a", "b", "c"] * 3))


def test_validation_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    data = as_classification(read_chat(write(tmp_path / "a.jsonl", ['{"action": "x"}', '{"action": "y"}'] * 10)), "t")
    rows = read_chat(write(tmp_path / "b.jsonl", ['{"action":"x"}', '{"action": "z"}', "Y"] * 5))
    examples, missed = examples_of(rows, data)
    assert [each.label for each in examples] == ["x", "y"] * 5
    assert len(missed) == 5


def test_a_teachers_reply_is_read_in_other_forms_too() -> None:
    replies = ["<l>a</l>", "<l>b</l>"] * 6
    form, _, _ = find_reply_template(replies)
    from fingerpost.task.loader import task_of_labels

    task = task_of_labels("t", ["a", "b"])
    assert label_in(form, task, "<l>b</l>") == "b"
    assert label_in(form, task, '```json\n{"action": "A"}\n```') == "a"
    assert label_in(form, task, "I think it is a") is None
    assert label_in(ReplyTemplate(), task, "b") == "b"


def test_a_prompt_around_the_users_texts_is_left_out() -> None:
    texts = ["where is it", "where are they", 'a "quoted" one?']
    prompt = "Classify the text into ['a', 'b'].\n\nText: ```%s```\nYour JSON response:"
    frame = find_user_template([prompt % text for text in texts])
    assert frame.before == "Classify the text into ['a', 'b'].\n\nText: ```"
    assert frame.after == "```\nYour JSON response:"
    assert [frame.inside(prompt % text) for text in [*texts, "new"]] == [*texts, "new"]
    assert frame.inside("without a prompt") == "without a prompt"
    assert frame.inside(prompt % "") == prompt % ""


def test_texts_that_begin_alike_have_no_frame() -> None:
    assert find_user_template(["how do I pay?", "how do I leave?"]) == UserTemplate()
    assert find_user_template(["x", "x"]) == UserTemplate()


STRANGE = st.sampled_from(["", " ", "a", "a|b", "\x1f", "x" * 400, "1", "[]", "ä", "null"])


@given(
    st.lists(st.tuples(STRANGE, STRANGE), min_size=10, max_size=30), st.sampled_from(["%s", '{"action": "%s"}', "%s!"])
)
def test_any_replies_are_a_classification_or_named_as_none(found: list[tuple[str, str]], form: str) -> None:
    rows = [Row(i, (Message("user", f"{text} {i}"),), form % label, "") for i, (text, label) in enumerate(found)]
    try:
        data = as_classification(rows, "x")
    except NoClassification as error:
        assert "\n" not in str(error)
    else:
        assert len(data.examples) == len(rows)


def test_an_empty_label_is_named() -> None:
    rows = [
        Row(i, (Message("user", f"text {i}"),), json.dumps({"action": name}), "")
        for i, name in enumerate(["", "a", "b"] * 9)
    ]
    with pytest.raises(NoClassification, match="label that cannot be used"):
        as_classification(rows, "x")


@pytest.mark.parametrize(
    "line", [" " * 200_000, "a" + " " * 200_000 + "b", "*" * 200_000, "- " + "`'" * 100_000, "a -" * 60_000]
)
def test_a_long_line_of_the_system_prompt_takes_no_time(line: str) -> None:
    assert [label.name for label in labels_of(["x", "y"], line).values()] == ["x", "y"]


@pytest.mark.parametrize("field", ["system", "user", "assistant"])
@pytest.mark.parametrize("bad", ["\\ud800", "\\u0000"])
def test_characters_that_cannot_be_stored_are_named_with_their_line(tmp_path: Path, field: str, bad: str) -> None:
    lines = []
    for number in range(12):
        said = {"system": "s", "user": f"text {number}", "assistant": NAMES[number % 3]}
        turns = ", ".join(
            f'{{"role": "{role}", "content": "{text}{bad if role == field and number == 6 else ""}"}}'
            for role, text in said.items()
        )
        lines.append(f'{{"messages": [{turns}]}}')
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 7: "):
        read_chat(tmp_path / "x.jsonl")


def test_replies_with_several_fields_are_split_by_field() -> None:
    replies = [
        json.dumps({"route": {"queue": queue}, "urgency": level, "source": "mail"})
        for queue, level in [("billing", 1), ("delivery", 2), ("billing", 2), ("delivery", 1)] * 3
    ]
    found = split_by_field(replies)
    assert found is not None
    schema, fields = found
    assert list(fields) == [("route", "queue"), ("urgency",)]
    assert fields["urgency",][:2] == ['{"urgency": 1}', '{"urgency": 2}']
    assert schema["properties"]["route"]["properties"]["queue"] == {"enum": ["billing", "delivery"]}
    assert schema["properties"]["source"] == {"const": "mail"}
    assert value_at(replies[0], ("route", "queue")) == '{"queue": "billing"}'
    assert value_at("no JSON", ("route",)) == "no JSON"
    one, mixed, text = (
        ['{"a": "x"}', '{"a": "y"}'] * 5,
        ['{"a": "x", "b": [1]}', '{"a": "y", "b": [2]}'] * 5,
        ["x", "y"],
    )
    assert split_by_field(one) is None and split_by_field(mixed) is None and split_by_field(text) is None


def test_calls_of_several_tools_are_labels_by_their_names(tmp_path: Path) -> None:
    def call(name: str, arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}

    def read(*calls: dict[str, Any]) -> Any:
        file = tmp_path / "a.jsonl"
        lines = [{"messages": [{"role": "user", "content": f"text {i}"}, calls[i % len(calls)]]} for i in range(20)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return as_classification(read_chat(file), "t")

    assert read(call("a", "{}"), call("b", "{}")).task.names == ["a", "b"]
    assert read(call("t", '{"x": "one"}'), call("t", '{"x": "two"}')).task.names == ["one", "two"]
    for mixed in ((call("a", '{"x": 1}'), call("b", "{}")), (call("a", "{}"), {"role": "assistant", "content": "b"})):
        with pytest.raises(NoClassification):
            read(*mixed)
