"""The hosted student: a fine-tuning job at any provider that speaks OpenAI's API, and the `ft:` model as a predictor.

How far a job has come is kept in a file beside the model's folder, so that a run that was cut off goes on with the
files that are uploaded and the job that is created, and never pays for a second one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from fingerpost.core.errors import InputError, ModelError, TeacherError
from fingerpost.core.text import conversation, fingerprint
from fingerpost.core.types import Example, Message, Prediction, Usage
from fingerpost.core.utils import is_loopback, locked
from fingerpost.core.version import __version__
from fingerpost.llm.completion import message_of
from fingerpost.students import folder as artifact
from fingerpost.students.folder import Manifest
from fingerpost.task.prompt import chat, prompt_fingerprint, system_prompt, training_line
from fingerpost.task.replies import parse
from fingerpost.task.settings import Task

AT_ONCE = 8
FIRST_POLL_S, LONGEST_POLL_S = 1.0, 20.0
MAX_TOKENS = 64
TRUST = "FINGERPOST_TRUST"  # hosts that may get a key, with commas between


def lines_of(task: Task, examples: Sequence[Example]) -> list[str]:
    """Chat JSONL, a line an example: system, the conversation, the reply with its most probable label."""
    return [training_line(task, each.messages, each.label) for each in examples]


def fit(
    examples: Sequence[Example],
    dev: Sequence[Example],
    task: Task,
    folder: Path,
    *,
    model: str,
    suffix: str | None = None,
    base_url: str | None = None,
    key_env: str = "OPENAI_API_KEY",
    epochs: int | None = None,
    labels_from: dict[str, int] | None = None,
    data_fingerprint: str = "",
    show: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Upload, create a job, wait until it ends, and write a model folder that says where the model answers.

    Raises:
        InputError: no API key.
        ModelError: the job failed, or was cancelled.
        TeacherError: the provider cannot be reached or refuses; run it again, and it goes on.
    """
    artifact.require_free(folder)
    client = client_of(base_url, key_env)
    sides = {"training_file": lines_of(task, examples), "validation_file": lines_of(task, dev)}
    key = fingerprint(
        [*sides["training_file"], *sides["validation_file"], model, suffix or "", base_url or "", str(epochs)]
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    kept = _Kept(folder.with_name(f".{folder.name}-{key}.json"))
    with locked(kept.file.with_suffix(".lock"), f"another run trains {folder} already; wait for it"):
        job = _finished(client, kept, sides, model, suffix, epochs, key_env, show)
    with artifact.writing(folder) as fresh:
        ids = sorted({each.id for each in (*examples, *dev)})
        (fresh / artifact.TRAINED_ON).write_text("\n".join(ids) + "\n", encoding="ascii")
        manifest = artifact.write_manifest(fresh, Manifest(
            kind="hosted",
            name=folder.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerpost=__version__,
            labels=list(task.labels),
            answer_field=task.answer_field,
            system=system_prompt(task, codes=True),
            hosted={"model": job.fine_tuned_model, "base_url": str(client.base_url), "key_env": key_env, "job": job.id},
            history=0,
            max_tokens=MAX_TOKENS,
            task_fingerprint=prompt_fingerprint(task),
            data_fingerprint=data_fingerprint,
            labels_from=labels_from or {},
            training={"train_rows": len(examples), "dev_rows": len(dev), "tokens": job.trained_tokens or 0},
            versions={"openai": version("openai")},
        ))  # fmt: skip
    kept.forget()
    return manifest


def _finished(
    client: openai.OpenAI,
    kept: _Kept,
    sides: dict[str, list[str]],
    model: str,
    suffix: str | None,
    epochs: int | None,
    key_env: str,
    show: Callable[[str], None],
) -> Any:
    """The job, succeeded: begun, or gone on with, from what is kept."""
    try:
        for name, lines in sides.items():
            if lines and name not in kept.state:
                show(f"uploading {len(lines):,} rows")
                upload = client.files.create(file=(f"{name}.jsonl", "".join(lines).encode()), purpose="fine-tune")
                kept.put(name, upload.id)
        job = _job(client, kept, model, suffix, epochs)
        show(f"job {job.id} at {client.base_url}")
        job = _wait(client, job, show)
    except openai.AuthenticationError:
        raise TeacherError(f"{client.base_url} refuses the key; check ${key_env}") from None
    except openai.APIStatusError as error:
        raise TeacherError(f"{client.base_url} says {error.status_code}: {message_of(error)}") from None
    except openai.APIConnectionError:
        raise TeacherError(
            f"{client.base_url} cannot be reached; run the command again: it goes on with the same job"
        ) from None
    if job.status != "succeeded" or not job.fine_tuned_model:
        kept.forget()
        why = job.error.message if job.error and job.error.message else "no reason was given"
        raise ModelError(f"the job {job.id} {job.status}: {why}; mend that, and run the command again")
    return job


class HostedStudent:
    """A fine-tuned model at a provider. Each conversation is a request, several at once, retried by the client.

    Raises:
        InputError: on construction, if there is no API key.
        ModelError: it answers at a place that the user has not named.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.name = folder.name
        self.manifest = manifest
        hosted = manifest.hosted
        _require_trust(folder, hosted["base_url"])
        self._model = hosted["model"]
        self._key_env = hosted["key_env"]
        self._task = Task(name=manifest.name, labels=tuple(manifest.labels), answer_field=manifest.answer_field)
        self._client = client_of(hosted["base_url"], self._key_env)

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        """One prediction for each conversation, in order. The confidence is the probability of the reply's tokens.

        Raises:
            TeacherError: the provider cannot be reached, or refuses.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._ask, conversations))

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _ask(self, given: str | Sequence[Message]) -> Prediction:
        began = time.perf_counter()
        messages: Any = chat(self.manifest.system, conversation(given))
        try:
            answer = self._client.chat.completions.create(
                model=self._model, messages=messages, temperature=0, logprobs=True, max_tokens=MAX_TOKENS
            )
        except openai.APIStatusError as error:
            raise TeacherError(f"{self._client.base_url} says {error.status_code}: {message_of(error)}") from None
        except openai.APIConnectionError:
            raise TeacherError(f"{self._client.base_url} cannot be reached; is it running?") from None
        choice, used = answer.choices[0], answer.usage
        label = parse(self._task, choice.message.content)
        tokens = (choice.logprobs.content if choice.logprobs else None) or []
        confidence = math.exp(sum(token.logprob for token in tokens)) if tokens and label else 0.0
        usage = Usage(
            used.prompt_tokens if used else None, None, used.completion_tokens if used else None, None,
            time.perf_counter() - began,
        )  # fmt: skip
        return Prediction(label, confidence, {label: confidence} if label and tokens else {}, self.name, usage)


def load(folder: Path, manifest: Manifest, threads: int = 1) -> HostedStudent:  # noqa: ARG001 - it computes nothing here
    """Open a checked model folder."""
    return HostedStudent(folder, manifest)


def client_of(base_url: str | None, key_env: str) -> openai.OpenAI:
    """The provider's client; a server on this machine needs no key.

    Raises:
        InputError: the key's environment variable is not set.
    """
    key = os.environ.get(key_env, "")
    if not key and not is_loopback(base_url):
        raise InputError(f"there is no API key: set the environment variable {key_env}, or name another with --key-env")
    return openai.OpenAI(api_key=key or "none", base_url=base_url, max_retries=3)


def _require_trust(folder: Path, base_url: str) -> None:
    """A model folder says where it answers, and that place gets the key: only one that the user has named.

    Raises:
        ModelError: this place is neither OpenAI's, nor that of $OPENAI_BASE_URL, nor in $FINGERPOST_TRUST.
    """
    host = urlsplit(base_url).hostname
    named = urlsplit(os.environ.get("OPENAI_BASE_URL", "")).hostname
    trusted = {"api.openai.com", named, *os.environ.get(TRUST, "").split(",")}
    if not is_loopback(base_url) and host not in trusted:
        raise ModelError(f"{folder} answers at {host}, which would get your key; if you trust it, set {TRUST}={host}")


class _Kept:
    """How far a job has come, in a file. Other data, or another model, have another file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.state: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def put(self, name: str, value: str) -> None:
        self.state[name] = value
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.state), encoding="utf-8")
        part.replace(self.file)

    def forget(self) -> None:
        for file in (self.file, self.file.with_suffix(".lock")):
            file.unlink(missing_ok=True)


def _job(client: openai.OpenAI, kept: _Kept, model: str, suffix: str | None, epochs: int | None) -> Any:
    """The job of these files: the one that is known, one that was created just before a crash, or a new one."""
    if "job" in kept.state:
        return client.fine_tuning.jobs.retrieve(kept.state["job"])
    job: Any = None
    if "creating" in kept.state:
        files = kept.state["training_file"]
        job = next((each for each in client.fine_tuning.jobs.list() if each.training_file == files), None)
    if job is None:
        kept.put("creating", "1")
        more: dict[str, Any] = {}
        if "validation_file" in kept.state:
            more["validation_file"] = kept.state["validation_file"]
        if suffix:
            more["suffix"] = suffix
        if epochs:
            more["method"] = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}}
        # A creation that is sent twice is paid twice: what is not known to have arrived is looked up first.
        once = client.with_options(max_retries=0)
        job = once.fine_tuning.jobs.create(model=model, training_file=kept.state["training_file"], **more)
    kept.put("job", job.id)
    return job


def _wait(client: openai.OpenAI, job: Any, show: Callable[[str], None]) -> Any:
    """Poll until the job has ended, telling what is new."""
    told: set[str] = set()
    pause = FIRST_POLL_S
    while True:
        job = client.fine_tuning.jobs.retrieve(job.id)
        for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=50).data):
            if event.id not in told:
                told.add(event.id)
                show(event.message)
                pause = FIRST_POLL_S
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(pause)
        pause = min(LONGEST_POLL_S, 1.5 * pause)
