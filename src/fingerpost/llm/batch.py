"""Runs requests through OpenAI's batch API (/v1/batches): about half the price, answers within 24 hours.

Each step of submitting a batch is stored. A run that was interrupted between two steps resumes the same batch later, so
no request is sent twice. The cost of a batch stays reserved in the ledger until its results are fetched.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import openai

from fingerpost.core.errors import TeacherError
from fingerpost.core.text import parse_json, shorten, storable
from fingerpost.core.types import Progress, ProgressCallback, Usage, no_progress
from fingerpost.core.utils import chunks, count, locked
from fingerpost.llm import prices
from fingerpost.llm.completion import (
    Chat,
    Reply,
    RequestLost,
    Schema,
    api_key,
    is_maybe_charged,
    parse_completion,
    request_body,
    request_bytes,
    request_parameters,
    teacher_error,
    usage_with_cost,
)
from fingerpost.llm.polling import poll
from fingerpost.llm.provider import call_provider, provider_client
from fingerpost.llm.requests import (
    UNUSABLE_LIMIT,
    Jobs,
    RequestSpec,
    RunProgress,
    all_unusable,
    lease_key,
    out_of_budget,
)
from fingerpost.llm.runner import run_requests
from fingerpost.store.ledger import Call, Outcome, Refusal, Settlement
from fingerpost.store.project import ProviderBatch, Store
from fingerpost.task.settings import TeacherSettings

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
PARAMETERS = ("max_tokens", "max_completion_tokens", "temperature", "logprobs", "response_format", "json_schema")
MAX_REQUESTS = 20_000  # per batch; OpenAI accepts 50,000 and 200 MB
LEDGER_CHUNK = 500  # settlements per transaction
FINAL_STATES = ("completed", "failed", "expired", "cancelled")
MAX_SEARCHED = 100  # recent batches to search for one whose id was not stored because the run was interrupted

J = TypeVar("J")


def run_requests_or_batch(
    spec: RequestSpec[J],
    jobs: Jobs[J],
    store: Store,
    teacher: TeacherSettings,
    folder: Path,
    *,
    planned_at: int | None = None,
    batch: bool,
    budget_usd: float | None = None,
    record: Path | None = None,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress:
    """`run_batch` if `batch` is set, else `run_requests`; see these for arguments and errors."""
    if batch:
        return run_batch(
            spec, jobs, store, teacher, planned_at=planned_at, budget_usd=budget_usd, on_progress=on_progress
        )
    return run_requests(
        spec, jobs, store, teacher, folder,
        planned_at=planned_at, budget_usd=budget_usd, record=record, on_progress=on_progress,
    )  # fmt: skip


def run_batch(
    spec: RequestSpec[J],
    jobs: Jobs[J],
    store: Store,
    teacher: TeacherSettings,
    *,
    planned_at: int | None = None,
    budget_usd: float | None = None,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress:
    """Fetch the results of open batches, then submit the jobs as new batches and wait for them.

    Ctrl-C stops waiting; the batch keeps running at the provider, and the next run fetches it.

    Args:
        planned_at: `Ledger.settled` when the jobs were chosen; now by default.
        budget_usd: limit in US dollars on the total of the project's ledger.

    Raises:
        TeacherError: the provider cannot be reached or refuses the batch, or none of its replies is usable.
        BudgetError: the budget has no room for a single request.
    """
    if teacher.api == "decisions":
        raise TeacherError('batches are for chat requests; with api = "decisions", run the command without --batch')
    if teacher.recorded:
        raise TeacherError("the teacher's answers are replayed from a file; run the command without --batch")
    with locked(
        store.path.with_name(".batch.lock"), "another run is waiting for a batch of this project; let it finish first"
    ):
        planned_at = store.ledger.settled if planned_at is None else planned_at
        return _run(spec, jobs, store, teacher, planned_at, budget_usd, on_progress)


def _run(
    spec: RequestSpec[J],
    jobs: Jobs[J],
    store: Store,
    teacher: TeacherSettings,
    planned_at: int,
    budget_usd: float | None,
    on_progress: ProgressCallback,
) -> RunProgress:
    open_batches = [posted for posted in store.open_batches(spec.step) if posted.model == teacher.model]
    progress = RunProgress(total=len(jobs) + sum(len(posted.jobs) for posted in open_batches))
    client = provider_client(api_key(teacher), teacher.base_url, teacher.timeout_s)

    def fetch(posted: ProviderBatch) -> None:
        refusals: list[str] = []
        try:
            batch = _finished_batch(client, store, teacher, posted, on_progress)
        except openai.NotFoundError as error:
            if not isinstance(error.body, dict):  # a page of some other server
                raise
            _release(store, posted.id, "lost" if posted.batch else "unsent")
            raise TeacherError(
                f"{client.base_url} no longer has the batch; run the command again to submit a new one"
            ) from None
        lines, missing = ([], 0) if batch is None else _result_lines(client, batch, posted)
        again = missing > 0 and posted.state != "short"
        for part in chunks(
            _settle(client, spec, store, teacher, posted, batch, lines, missing, again, refusals), LEDGER_CHUNK
        ):
            store.ledger.record([settlement for settlement, _, _ in part], [], budget_usd)
            for settlement, reply, usable in part:
                if reply is not None:
                    progress.count(reply, settlement.usage, usable)
            on_progress(progress.report(spec.step))
        store.update_batch(posted.id, state="short" if again else "ended")
        if again:
            raise TeacherError(
                f"batch {batch.id} at {client.base_url}: {missing:,} answers are missing from the results; the others are stored. "
                "Run the command again to fetch them; what is missing then counts as charged"
            )
        if batch is not None and batch.status == "failed":
            reason = _first_error(batch) or "no reason was given"
            raise TeacherError(f"the batch {batch.id} failed: {reason}; fix that, and run the command again")
        if refusals:
            raise TeacherError(
                f"{client.base_url} refuses the requests: {refusals[0]}; run the command without --batch, which leaves "
                "out parameters that the endpoint does not support"
            )

    try:
        for posted in open_batches:
            fetch(posted)
        for part in chunks(jobs, MAX_REQUESTS):
            submitted, refused = _submit(client, spec, part, store, teacher, planned_at, budget_usd)
            progress.elsewhere += refused["answered"] + refused["leased"]
            if refused["budget"]:
                progress.stopped = "budget"
            if submitted is not None:
                fetch(submitted)
            if progress.stopped:
                break
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
        raise out_of_budget(_max_cost(teacher, *spec.request(next(iter(jobs)))), budget_usd)
    if progress.done >= UNUSABLE_LIMIT and not progress.usable:
        raise all_unusable(spec, progress)
    return progress


def _max_cost(teacher: TeacherSettings, messages: Chat, schema: Schema) -> float:
    """The highest possible price of a batch request in US dollars."""
    return teacher.batch_price * prices.at_most(teacher, request_bytes(messages, schema))


def _submit(
    client: openai.OpenAI,
    spec: RequestSpec[J],
    jobs: Sequence[J],
    store: Store,
    teacher: TeacherSettings,
    planned_at: int,
    budget: float | None,
) -> tuple[ProviderBatch | None, Counter[int | Refusal]]:
    """Reserve costs, upload the requests and create a batch; None if no request may be sent. Also counts the refusals."""
    requests = [spec.request(job) for job in jobs]
    key = store.add_batch(spec.step, teacher.model, teacher.base_url)
    calls = [
        Call(
            spec.step, teacher.model, _max_cost(teacher, *request),
            lease_key(spec.step, teacher.model, spec.key(job)), planned_at,
        )
        for job, request in zip(jobs, requests, strict=True)
    ]  # fmt: skip
    ids = store.ledger.record([], calls, budget, batch_id=key)
    parameters, lines, keys = request_parameters(teacher, spec.temperature), [], {}
    for job, call_id, (messages, schema) in zip(jobs, ids, requests, strict=True):
        if not isinstance(call_id, int):
            continue
        keys[str(call_id)] = spec.key(job)
        line = {"custom_id": str(call_id), "method": "POST", "url": ENDPOINT}
        body = request_body(teacher.model, messages, schema, parameters)
        lines.append(json.dumps({**line, "body": body}, ensure_ascii=False) + "\n")
    if not lines:
        store.update_batch(key, state="ended")
        return None, Counter(ids)
    store.update_batch(key, jobs=keys)
    try:
        named = (f"fingerpost-{key}.jsonl", "".join(lines).encode())
        file = call_provider(client.base_url, lambda: client.files.create(file=named, purpose="batch"), "id")
    except (openai.OpenAIError, TeacherError):
        _release(store, key, "unsent")
        raise
    store.update_batch(key, file=file.id, state="creating")
    try:  # no retries: a second attempt could create a second batch
        once = client.with_options(max_retries=0)
        batch = call_provider(
            client.base_url,
            lambda: once.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"),
            "id",
            "status",
        )
    except openai.APIStatusError as error:
        if not is_maybe_charged(error.status_code):
            _release(store, key, "unsent")
        raise
    return store.update_batch(key, batch=batch.id, state="out"), Counter(ids)


def _finished_batch(
    client: openai.OpenAI, store: Store, teacher: TeacherSettings, posted: ProviderBatch, on_progress: ProgressCallback
) -> Any:
    """Wait until a batch has ended and return it; None if the run was interrupted before the batch was created."""
    if posted.state != "new" and posted.base_url != teacher.base_url:
        raise TeacherError(
            f"a batch of {len(posted.jobs):,} requests lies at {posted.base_url or 'OpenAI'}; set base_url back to "
            "that address, and run the command again with --batch"
        )
    batch_id = posted.batch or (_find_batch(client, posted.file) if posted.state == "creating" else None)
    if batch_id is None:
        return None
    store.update_batch(posted.id, batch=batch_id, state="out")
    return _wait_for_batch(client, batch_id, posted.step, on_progress)


def _settle(
    client: openai.OpenAI, spec: RequestSpec[Any], store: Store, teacher: TeacherSettings, posted: ProviderBatch, batch: Any,
    lines: Sequence[dict[str, Any]], missing: int, again: bool, refusals: list[str],
) -> Iterator[tuple[Settlement, Reply | None, bool]]:  # fmt: skip
    """The settlement of each call of a batch, with its reply and whether that is usable.

    If the endpoint does not support a parameter of the requests, its error message is added to `refusals`, and the calls
    are settled as not sent. While answers are missing, the calls without one stay open, or with `again` being false, they may
    have been charged.
    """
    if batch is None:  # the requests were never sent
        for call_id in store.batch_calls(posted.id):
            yield Settlement(call_id, "unsent"), None, False
        return
    unanswered_jobs = dict(posted.jobs)
    for line in lines:
        key = unanswered_jobs.pop(str(line.get("custom_id")), None)
        if key is None:
            continue
        call_id = int(line["custom_id"])
        reply = _parse_line(line, str(client.base_url))
        if reply is not None and reply.rejected and any(word in str(reply.refusal) for word in PARAMETERS):
            refusals.append(str(reply.refusal))
            reply = None
        if reply is None:
            yield Settlement(call_id, "unsent"), None, False
            continue
        usage = usage_with_cost(teacher, reply, 0.0)
        cost = teacher.batch_price * (usage.cost_usd or 0.0)
        if usage.prompt is None and not reply.rejected:
            cost = store.ledger.reserved(call_id)
        usage = replace(usage, cost_usd=cost)
        stored, usable = spec.keep(key, reply)
        yield Settlement(call_id, "paid", usage, stored), reply, usable
    if again:
        return
    for call_id in map(int, unanswered_jobs):
        yield Settlement(call_id, "lost" if missing else "unsent"), None, False


def _result_lines(client: openai.OpenAI, batch: Any, posted: ProviderBatch) -> tuple[list[dict[str, Any]], int]:
    """The lines of a batch's output and error files, and how many answers they lack according to the batch."""
    lines = []
    for file in (batch.output_file_id, batch.error_file_id):
        if isinstance(file, str):
            text = call_provider(client.base_url, partial(client.files.content, file)).text
            lines += [_json_object(line) for line in text.split("\n")]
    answered = {str(line.get("custom_id")) for line in lines} & posted.jobs.keys()
    completed = count(getattr(batch.request_counts, "completed", None)) or 0
    return lines, 0 if batch.status == "failed" else max(0, completed - len(answered))


def _first_error(batch: Any) -> str:
    """The first error of a failed batch; empty if it names none."""
    found = next(iter(getattr(batch.errors, "data", None) or []), None)
    return shorten(storable(str(getattr(found, "message", None) or "")), 200)


def _release(store: Store, posted_id: int, outcome: Outcome) -> None:
    """Close a batch that will have no results, and settle its calls."""
    store.ledger.record([Settlement(call_id, outcome) for call_id in store.batch_calls(posted_id)], [], None)
    store.update_batch(posted_id, state="ended")


def _json_object(text: str) -> dict[str, Any]:
    """A line of a batch's output file as a JSON object; empty if it is not one."""
    try:
        line = parse_json(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _wait_for_batch(client: openai.OpenAI, batch_id: str, step: str, on_progress: ProgressCallback) -> Any:
    """Poll a batch until it has ended, reporting its status; returns the batch."""
    reported = ""

    def retrieve() -> Any:
        nonlocal reported
        batch = call_provider(client.base_url, lambda: client.batches.retrieve(batch_id), "id", "status")
        done, total = (count(getattr(batch.request_counts, name, None)) for name in ("completed", "total"))
        answered = f", {done:,} of {total:,} answered" if done is not None and total is not None else ""
        message = f"batch {batch_id}: {batch.status}{answered}"
        if message != reported:
            on_progress(Progress(step, message))
            reported = message
        return batch

    return poll(retrieve, lambda batch: batch.status in FINAL_STATES)


def _find_batch(client: openai.OpenAI, file: str | None) -> str | None:
    """The id of the batch that was created from this file, among the most recent batches; None if there is none."""
    recent = call_provider(client.base_url, lambda: list(islice(client.batches.list(limit=20), MAX_SEARCHED)))
    found = (batch for batch in recent if getattr(batch, "input_file_id", None) == file)
    return next((str(batch.id) for batch in found if isinstance(getattr(batch, "id", None), str)), None)


def _parse_line(line: dict[str, Any], where: str) -> Reply | None:
    """The reply in a line of a batch's output; None if the request was not processed and can be sent again."""
    response = line.get("response")
    if not isinstance(response, dict):
        return None
    body = response.get("body")
    if response.get("status_code") == 200:
        try:
            return parse_completion(body, None, where)
        except RequestLost:
            return Reply(None, Usage(), None, "no completion")
    if response.get("status_code") == 400:
        return Reply(None, Usage(), None, json.dumps(body)[:300], rejected=True)
    return None
