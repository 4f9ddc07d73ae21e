"""Price estimate of a generation run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fingerpost.core.types import Message, Question, Usage
from fingerpost.generation.plan import PlanContext, plan_round
from fingerpost.generation.prompts import reply_schema, writing_prompt
from fingerpost.generation.requests import writers_of
from fingerpost.generation.state import GenerationState
from fingerpost.labelling.requests import LabelJob, LabelRequests, LabelSelection, open_jobs
from fingerpost.llm import prices
from fingerpost.llm.completion import request_bytes
from fingerpost.llm.requests import BYTES_PER_TOKEN, teacher_of
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

EXPECTED_TRUSTED_RATIO = 0.7  # of requested questions
MAX_REQUESTED_RATIO = 4  # requested questions per wanted one; then a run ends
TOKENS_PER_TEXT, TOKENS_PER_LABEL_REPLY = 30, 10
QUESTION_CHARACTERS, MAX_QUESTION_BYTES = 80, 600  # of a generated question: typical, and at most


@dataclass(frozen=True, slots=True)
class Estimate:
    """The number of writing requests and the cost in US dollars, labelling included."""

    calls: int
    about_usd: float
    at_most_usd: float


def estimate(task: Task, count: int, *, batch: bool = False) -> Estimate:
    """What it takes to write and label `count` questions, by briefs of typical length.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: a model's price is unknown.
    """
    teacher, writers = teacher_of(task), writers_of(task)
    briefs = plan_round(task, PlanContext(), math.ceil(count / EXPECTED_TRUSTED_RATIO), "estimate")
    calls = len(briefs) + 1
    texts = sum(len(brief.items) for brief in briefs) / len(briefs)
    sizes = [request_bytes(writing_prompt(task, brief), reply_schema(brief)) for brief in briefs]
    question = Question("", (Message("user", "x" * QUESTION_CHARACTERS),), "", "", "train")
    label_size = request_bytes(*LabelRequests(task).request(LabelJob(question, 0)))
    prompt_tokens = round(sum(sizes) / len(briefs) / BYTES_PER_TOKEN)
    call = Usage(prompt=prompt_tokens, completion=round(TOKENS_PER_TEXT * texts))
    about = at_most = 0.0
    for writer in writers:
        factor = (writer.batch_price if batch else 1.0) * calls / len(writers)
        about += factor * prices.cost(writer, call)
        at_most += factor * MAX_REQUESTED_RATIO * prices.at_most(writer, 2 * max(sizes))
    factor = teacher.batch_price if batch else 1.0
    reply = Usage(prompt=round(label_size / BYTES_PER_TOKEN), cached=0, completion=TOKENS_PER_LABEL_REPLY)
    about += factor * count / EXPECTED_TRUSTED_RATIO * prices.cost(teacher, reply)
    at_most += factor * MAX_REQUESTED_RATIO * count * prices.at_most(teacher, label_size + MAX_QUESTION_BYTES)
    return Estimate(calls, about, at_most)


def count_open_questions(store: Store, state: GenerationState) -> int:
    """How many questions of earlier runs still have to be written or labelled. They are requested first."""
    unwritten = sum(len(state.briefs[draft.id].items) for draft in state.drafts if not draft.answered)
    return unwritten + len(open_jobs(state.task, store, LabelSelection(only=state.intended)))
