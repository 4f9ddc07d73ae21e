"""The plan of a round: repeatable, fair to every label, within the task."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from generation_helpers import SHOP
from hypothesis import given
from hypothesis import strategies as st
from teacher import words

from fingerpost.core.text import humanise
from fingerpost.core.types import Label
from fingerpost.generation.brief import Brief
from fingerpost.generation.plan import (
    FORM_RATIOS,
    PER_CALL,
    HardExample,
    PlanContext,
    plan_hard_examples,
    plan_round,
)
from fingerpost.generation.prompts import reply_schema, writing_prompt
from fingerpost.task.loader import task_of_labels

LABELS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=2, max_size=12, unique=True)


@given(LABELS, st.integers(1, 200), st.integers(0, 5), st.booleans())
def test_a_plan_is_repeatable_and_fair_to_every_label(names: list[str], count: int, seed: int, fallback: bool) -> None:
    task = task_of_labels("t", names)
    task = task.model_copy(update={"fallback": names[0] if fallback else None})
    context = PlanContext(out_of_scope=["a bike"])
    plan = plan_round(task, context, count, str(seed))
    assert plan == plan_round(task, context, count, str(seed))
    assert count <= sum(len(brief.items) for brief in plan) < count + max(PER_CALL.values())
    asked = Counter(item.label for brief in plan for item in brief.items)
    if not fallback:
        assert max(asked.values()) - min(asked[name] for name in names) <= 2 * max(PER_CALL.values())
    for brief in plan:
        assert Brief.from_json(json.loads(json.dumps(brief.to_json()))) == brief
        assert list(reply_schema(brief)["properties"]) == [str(i + 1) for i in range(len(brief.items))]
        assert all((item.kind in ("near", "far")) == (item.label == task.fallback) for item in brief.items)
        assert brief.form != "wordings" or {item.label for item in brief.items} <= {*names} - {task.fallback}
        assert brief.form != "wordings" or len({item.label for item in brief.items}) == 1
        prompt = writing_prompt(task, brief)
        assert [turn["role"] for turn in prompt][:2] == ["system", "user"] and prompt[-1]["role"] == "user"


def test_another_seed_plans_otherwise_and_what_lacks_comes_first() -> None:
    def labels(context: PlanContext) -> Counter[str]:
        return Counter(item.label for brief in plan_round(SHOP, context, 50, "0") for item in brief.items)

    assert plan_round(SHOP, PlanContext(), 50, "0") != plan_round(SHOP, PlanContext(), 50, "1")
    lacking = labels(
        PlanContext(trusted={(form, name): n for form in FORM_RATIOS for name, n in (("billing", 100), ("other", 300))})
    )
    assert lacking["delivery"] > 2 * max(lacking["billing"], lacking["other"])
    in_vain = labels(
        PlanContext(
            trusted={(form, name): n for form in FORM_RATIOS for name, n in (("billing", 20), ("other", 60))},
            asked={(form, "delivery"): 400 for form in FORM_RATIOS},
        )
    )
    assert in_vain["delivery"] < min(in_vain["billing"], in_vain["other"])


def test_near_labels_stand_side_by_side_and_some_questions_on_their_border() -> None:
    task = task_of_labels("t", [f"label {i}" for i in range(20)])
    context = PlanContext(nearest={name: [task.names[i ^ 1]] for i, name in enumerate(task.names)})
    plan = plan_round(task, context, 300, "0")
    mixed = [{item.label for item in brief.items} for brief in plan if brief.form == "messages"]
    together = sum(any(context.nearest[label][0] in labels for label in labels) for labels in mixed)
    assert together > 0.4 * len(mixed)
    border = [item for brief in plan for item in brief.items if item.kind == "border"]
    assert border and all(item.about == context.nearest[item.label][0] for item in border)
    assert any("it looks as if it meant" in writing_prompt(task, brief)[-1]["content"] for brief in plan)


@pytest.mark.parametrize(
    ("name", "description", "named"),
    [
        ("pto_request", "ask to take days off", True),
        ("17", "ask to take days off", False),
        ("take days off", "", False),
    ],
)
def test_a_label_is_asked_for_by_its_name_alone_where_that_says_more(name: str, description: str, named: bool) -> None:
    labels = (Label(name=name, description=description), Label(name="x", description="x"))
    task = task_of_labels("t", [name, "x"]).model_copy(update={"labels": labels})
    plan = plan_round(task, PlanContext(), 200, "0")
    wanted = [writing_prompt(task, brief)[-1]["content"] for brief in plan]
    assert any(item.kind == "named" for brief in plan for item in brief.items) == named
    assert named == any(f"All 6 users want the same: {humanise(name)}. " in each for each in wanted) or not description
    assert all(f"({name})" not in each for each in wanted)


def test_real_questions_set_the_manner_and_errors_come_up_in_turn() -> None:
    real = [f"wheres {words(i)}" for i in range(30)]
    plan = plan_round(SHOP, PlanContext(user_texts=real), 200, "0")
    assert sum(bool(brief.samples) for brief in plan) > 10
    assert any(real[i] in brief.samples for brief in plan for i in range(30))
    errors = [HardExample(f"text {i}", "billing") for i in range(3)]
    plan = plan_hard_examples(SHOP, errors, PlanContext(), 30, "0")
    assert Counter(item.about for brief in plan for item in brief.items) == Counter({f"text {i}": 10 for i in range(3)})
    assert all("the same as 'text" in writing_prompt(SHOP, brief)[-1]["content"] for brief in plan)
    assert plan_hard_examples(SHOP, [], PlanContext(), 30, "0") == []
