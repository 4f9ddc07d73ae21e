"""Requests handed in as a batch (OpenAI's /v1/batches): half the price, answered within a day.

Each step of handing in is stored, so that a run that was killed, days ago or between two steps, resumes the same batch:
nothing is asked twice. The batch's reservations stand until it is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import openai

from fingerpost.core.errors import TeacherError
from fingerpost.core.types import Progress, ProgressCallback, Usage, no_progress
from fingerpost.core.utils import chunks, locked
from fingerpost.llm import prices
from fingerpost.llm.completion import (
    Chat,
    Lost,
    Reply,
    Schema,
    api_key,
    parse_completion,
    request_body,
    request_bytes,
    request_parameters,
    teacher_error,
    usage_with_cost,
)
from fingerpost.llm.polling import poll
from fingerpost.llm.requests import UNUSABLE_LIMIT, RequestSpec, RunProgress, all_unusable, out_of_budget
from fingerpost.llm.runner import run_requests
from fingerpost.store.ledger import Call, Outcome, Settlement
from fingerpost.store.project import ProviderBatch, Store
from fingerpost.task.settings import TeacherSettings

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
PARAMETERS = ("max_tokens", "max_completion_tokens", "temperature", "logprobs", "response_format", "json_schema")
MAX_REQUESTS = 20_000  # in one batch; a provider takes 50,000, and 200 MB
BOOKED_TOGETHER = 500  # in one transaction
ENDED = ("completed", "failed", "expired", "cancelled")
MAX_LISTED = 100  # batches searched for one that was created when the run was killed

J = TypeVar("J")


def run_requests_or_batch(
    spec: RequestSpec[J],
    jobs: Sequence[J],
    store: Store,
    teacher: TeacherSettings,
    folder: Path,
    *,
    batch: bool,
    budget_usd: float | None = None,
    record: Path | None = None,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress:
    """`post_all` for a batch, else `ask_all`."""
    if batch:
        return run_batch(spec, jobs, store, teacher, budget_usd=budget_usd, on_progress=on_progress)
    return run_requests(
        spec, jobs, store, teacher, folder, budget_usd=budget_usd, record=record, on_progress=on_progress
    )


def run_batch(
    spec: RequestSpec[J],
    jobs: Sequence[J],
    store: Store,
    teacher: TeacherSettings,
    *,
    budget_usd: float | None = None,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress:
    """Fetch the batches that are out, then hand in these jobs and wait for them. Ctrl-C leaves them at the provider.

    Raises:
        TeacherError: the provider cannot be reached, refuses, or none of its replies is of use.
        BudgetError: not even one request fits into the budget.
    """
    if teacher.recorded:
        raise TeacherError("the teacher's answers are played back from a file; leave out --batch")
    with locked(store.path.with_name(".batch.lock"), "another run waits for a batch of this project; wait for it"):
        return _post(spec, jobs, store, teacher, budget_usd, on_progress)


def _post(
    spec: RequestSpec[J],
    jobs: Sequence[J],
    store: Store,
    teacher: TeacherSettings,
    budget_usd: float | None,
    on_progress: ProgressCallback,
) -> RunProgress:
    out = [each for each in store.open_batches(spec.step) if each.model == teacher.model]
    progress = RunProgress(total=len(jobs) + sum(len(each.jobs) for each in out))
    client = openai.OpenAI(
        api_key=api_key(teacher), base_url=teacher.base_url, timeout=teacher.timeout_s, max_retries=3
    )

    def fetch(posted: ProviderBatch) -> None:
        refused: list[str] = []
        try:
            batch = _ended(client, store, teacher, posted, on_progress)
        except openai.NotFoundError:
            _release(store, posted.id, "lost" if posted.batch else "unsent")
            raise TeacherError(f"{client.base_url} no longer has the batch; run the command again") from None
        for part in chunks(_settlements(client, spec, store, teacher, posted, batch, refused), BOOKED_TOGETHER):
            store.ledger.record([settlement for settlement, _, _ in part], [], budget_usd)
            for settlement, reply, useful in part:
                if reply is not None:
                    progress.count(reply, settlement.usage, useful)
            on_progress(progress.report(spec.step))
        store.update_batch(posted.id, state="ended")
        if batch is not None and batch.status == "failed":
            first = next(iter(batch.errors.data if batch.errors and batch.errors.data else []), None)
            why = first.message if first else "no reason was given"
            raise TeacherError(f"the batch {batch.id} failed: {why}; mend that, and run the command again")
        if refused:
            raise TeacherError(
                f"{client.base_url} refuses the requests: {refused[0]}; run the command without --batch: then what the "
                "endpoint does not understand is left out"
            )

    try:
        for each in out:
            fetch(each)
        for part in chunks(jobs, MAX_REQUESTS):
            posted = _hand_in(client, spec, part, store, teacher, budget_usd)
            if posted is None:
                progress.stopped = "budget"
                break
            if len(posted.jobs) < len(part):
                progress.stopped = "budget"
            fetch(posted)
    except KeyboardInterrupt:
        progress.stopped = "interrupted"
    except openai.NotFoundError:
        raise TeacherError(f"{client.base_url} has no batches; run the command without --batch") from None
    except openai.OpenAIError as error:
        then = "run the command again: it resumes the same batch"
        raise teacher_error(error, client.base_url, teacher.key_env, then) from None
    finally:
        client.close()
    if progress.stopped == "budget" and not progress.done:
        raise out_of_budget(_at_most(teacher, *spec.request(jobs[0])), budget_usd)
    if progress.done >= UNUSABLE_LIMIT and not progress.usable:
        raise all_unusable(spec, progress)
    return progress


def _at_most(teacher: TeacherSettings, messages: Chat, schema: Schema) -> float:
    return teacher.batch_price * prices.at_most(teacher, request_bytes(messages, schema))


def _hand_in(
    client: openai.OpenAI,
    spec: RequestSpec[J],
    jobs: Sequence[J],
    store: Store,
    teacher: TeacherSettings,
    budget: float | None,
) -> ProviderBatch | None:
    """Reserve, upload, create; None where the budget has no room for even one."""
    requests = [spec.request(job) for job in jobs]
    key = store.add_batch(spec.step, teacher.model, teacher.base_url)
    calls = [Call(spec.step, teacher.model, _at_most(teacher, *each)) for each in requests]
    ids = store.ledger.record([], calls, budget, batch_id=key)
    extras, lines, out = request_parameters(teacher, spec.temperature), [], {}
    for job, call_id, (messages, schema) in zip(jobs, ids, requests, strict=True):
        if call_id is None:
            continue
        out[str(call_id)] = spec.key(job)
        line = {"custom_id": str(call_id), "method": "POST", "url": ENDPOINT}
        body = request_body(teacher.model, messages, schema, extras)
        lines.append(json.dumps({**line, "body": body}, ensure_ascii=False) + "\n")
    if not lines:
        store.update_batch(key, state="ended")
        return None
    store.update_batch(key, jobs=out)
    try:
        file = client.files.create(file=(f"fingerpost-{key}.jsonl", "".join(lines).encode()), purpose="batch")
    except openai.OpenAIError:
        _release(store, key, "unsent")
        raise
    store.update_batch(key, file=file.id, state="creating")
    try:  # once only: a second try could make a second batch
        once = client.with_options(max_retries=0)
        batch = once.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    except openai.APIStatusError as error:
        if error.status_code < 500:
            _release(store, key, "unsent")
        raise
    return store.update_batch(key, batch=batch.id, state="out")


def _ended(
    client: openai.OpenAI, store: Store, teacher: TeacherSettings, posted: ProviderBatch, on_progress: ProgressCallback
) -> Any:
    """The batch, when it has ended; None where the run was killed before one was created."""
    if posted.state != "new" and posted.base_url != teacher.base_url:
        raise TeacherError(
            f"a batch of {len(posted.jobs):,} requests lies at {posted.base_url or 'OpenAI'}; set base_url back to "
            "that, and run the command again with --batch"
        )
    found = posted.batch or (_find(client, posted.file) if posted.state == "creating" else None)
    if found is None:
        return None
    store.update_batch(posted.id, batch=found, state="out")
    return _wait(client, found, posted.step, on_progress)


def _settlements(
    client: openai.OpenAI, spec: RequestSpec[Any], store: Store, teacher: TeacherSettings, posted: ProviderBatch, batch: Any,
    refused: list[str],
) -> Iterator[tuple[Settlement, Reply | None, bool]]:  # fmt: skip
    """How each call of a batch ended; with the reply, and whether that was of use.

    Where the endpoint does not understand what every request says, the reason goes to `refused`, and they count as
    never asked.
    """
    if batch is None:  # nothing was asked
        for call_id in store.batch_calls(posted.id):
            yield Settlement(call_id, "unsent"), None, False
        return
    left = dict(posted.jobs)
    for file in (batch.output_file_id, batch.error_file_id):
        if file is None:
            continue
        for text in client.files.content(file).text.split("\n"):
            line = _object(text)
            key = left.pop(str(line.get("custom_id")), None)
            if key is None:
                continue
            call_id = int(line["custom_id"])
            reply = _reply(line, str(client.base_url))
            if reply is not None and reply.rejected and any(word in str(reply.refusal) for word in PARAMETERS):
                refused.append(str(reply.refusal))
                reply = None
            if reply is None:
                yield Settlement(call_id, "unsent"), None, False
                continue
            usage = usage_with_cost(teacher, reply, 0.0)
            cost = teacher.batch_price * (usage.cost_usd or 0.0)
            if usage.prompt is None and not reply.rejected:
                cost = store.ledger.reserved(call_id)
            usage = replace(usage, cost_usd=cost)
            kept, useful = spec.keep(key, reply)
            yield Settlement(call_id, "paid", usage, kept), reply, useful
    for unanswered in left:
        yield Settlement(int(unanswered), "unsent"), None, False


def _release(store: Store, posted_id: int, outcome: Outcome) -> None:
    """End a batch of which nothing will come, and its calls."""
    store.ledger.record([Settlement(each, outcome) for each in store.batch_calls(posted_id)], [], None)
    store.update_batch(posted_id, state="ended")


def _object(text: str) -> dict[str, Any]:
    """A line of a batch's file; empty where it is none."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _wait(client: openai.OpenAI, key: str, step: str, on_progress: ProgressCallback) -> Any:
    """The batch, when it has ended."""
    reported = ""

    def look() -> Any:
        nonlocal reported
        batch = client.batches.retrieve(key)
        counts = batch.request_counts
        answered = f", {counts.completed:,} of {counts.total:,} answered" if counts else ""
        message = f"batch {key}: {batch.status}{answered}"
        if message != reported:
            on_progress(Progress(step, message))
            reported = message
        return batch

    return poll(look, lambda batch: batch.status in ENDED)


def _find(client: openai.OpenAI, file: str | None) -> str | None:
    """The batch that was made of this file, among the latest."""
    for number, batch in enumerate(client.batches.list(limit=20)):
        if batch.input_file_id == file:
            return str(batch.id)
        if number >= MAX_LISTED:
            break
    return None


def _reply(line: dict[str, Any], where: str) -> Reply | None:
    """The reply in a line of a batch's files; None where the request was not taken, and can be asked again."""
    response = line.get("response")
    if not isinstance(response, dict):
        return None
    body = response.get("body")
    if response.get("status_code") == 200:
        try:
            return parse_completion(body, None, where)
        except Lost:
            return Reply(None, Usage(), None, "no completion")
    if response.get("status_code") == 400:
        return Reply(None, Usage(), None, json.dumps(body)[:300], rejected=True)
    return None
