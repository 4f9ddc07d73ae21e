"""serve: students behind OpenAI's endpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.options import Folder
from fingerpost.project import SERVED

if TYPE_CHECKING:
    from contextlib import ExitStack

    from fingerpost.server.app import Server
    from fingerpost.server.inference.registry import ServedModel
    from fingerpost.server.settings import Settings
    from fingerpost.task.settings import Task, TeacherSettings

LOOPBACK = ("127.0.0.1", "localhost", "::1")

SECRET = "FINGERPOST_WEBHOOK_SECRET"

Data = typer.Option(None, "--data", help="The server's folder.", show_default="served, in the project's folder")


def serve(
    models: Annotated[list[str] | None, typer.Argument(help="Model folders, FOLDER or NAME=FOLDER.")] = None,
    folder: Path = Folder,
    data: Path | None = Data,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine keys are required.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    agreement: Annotated[
        float | None, typer.Option(min=0.5, max=1, help="Ask the teacher where the student may agree less with it.")
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(min=0.5, max=1, help="Ask the teacher where the student may be right less often.")
    ] = None,
    cutoff: Annotated[
        float | None, typer.Option(min=0, max=1, help="Ask the teacher below this confidence of the student.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="The teacher's model; else that of task.toml.")] = None,
    teacher_url: Annotated[str | None, typer.Option(help="The teacher's endpoint, if it is not OpenAI.")] = None,
    teacher_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds, then the student answers.")] = 10.0,
    budget: Annotated[
        float | None, typer.Option(min=0, help="US dollars that the teacher may cost this server.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="What jobs train: a sentence encoder, folder or hub name.")
    ] = "all-MiniLM-L6-v2",
    require_keys: Annotated[bool, typer.Option("--require-keys", help="Also on this machine.")] = False,
    log_requests: Annotated[bool, typer.Option(help="Keep what was asked, for 'fingerpost import --from-log'.")] = True,
    keep_days: Annotated[float, typer.Option(min=0, help="For how long.")] = 30.0,
    redact: Annotated[str | None, typer.Option(help="MODULE:FUNCTION, text to text, before anything is kept.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that students predict in.")] = 1,
    training_threads: Annotated[int | None, typer.Option(min=1, help="Threads of a training job.")] = None,
    max_jobs: Annotated[int, typer.Option(min=1, help="Fine-tuning jobs that may wait.")] = 100,
    max_upload: Annotated[int, typer.Option(min=1, help="Megabytes of a file.")] = 512,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Of each key.")] = None,
    webhook: Annotated[str | None, typer.Option(help="A URL to tell when a job or batch has ended.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log only what went wrong.")] = False,
) -> None:
    """Serve students behind OpenAI's endpoints: chat, files, fine-tuning jobs, batches."""
    from fingerpost.core.errors import InputError, MissingExtra

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "cachetools", "scipy"):
        if find_spec(module) is None:
            raise MissingExtra("serve", "the server")
    from contextlib import ExitStack

    from fingerpost.server.settings import Settings

    task = _task(folder)
    loopback = host in LOOPBACK
    wants_teacher = [each for each in (agreement, accuracy, cutoff) if each is not None]
    if len(wants_teacher) > 1:
        raise InputError("give one of --agreement, --accuracy and --cutoff: each of them sets the cut-off")
    if not wants_teacher and (teacher or teacher_url or budget is not None):
        raise InputError("when is the teacher to be asked? give --agreement, --accuracy or --cutoff")
    with ExitStack() as stack:
        asked = _teacher(task, teacher, teacher_url, folder, stack) if wants_teacher else None
        settings = Settings(
            folder=data or folder / SERVED,
            models=_named(models or []),
            project=folder if task is not None else None,
            task=task,
            teacher=asked,
            teacher_timeout_s=teacher_timeout,
            budget_usd=budget,
            cutoff=cutoff,
            agreement=agreement,
            accuracy=accuracy,
            encoder=encoder,
            keys_required=require_keys or not loopback,
            allowed_hosts=(*LOOPBACK, host),
            log_requests=log_requests,
            keep_days=keep_days,
            redact=_function(redact) if redact else None,
            threads=threads,
            training_threads=training_threads or max(1, (os.cpu_count() or 2) - 1),
            max_jobs=max_jobs,
            max_upload=max_upload * 1_000_000,
            requests_per_minute=requests_per_minute,
            webhook=webhook,
            webhook_secret=os.environ.get(SECRET),
        )
        _run(settings, host, port, quiet)


def _run(settings: Settings, host: str, port: int, quiet: bool) -> None:
    import socket

    import uvicorn

    from fingerpost.core.errors import InputError
    from fingerpost.core.utils import locked
    from fingerpost.server.app import Server
    from fingerpost.server.ops.logs import set_up

    settings.folder.mkdir(parents=True, exist_ok=True)
    taken = f"another server uses {settings.folder}; stop it, or give this one a folder with --data"
    with locked(settings.folder / "lock", taken):
        server = Server(settings)
        if settings.keys_required and not any(row.revoked_at is None for row in server.store.all_keys()):
            raise InputError(
                f"there is no key yet, and {host} can be reached by others; make one with 'fingerpost keys add NAME --data "
                f"{settings.folder}'"
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port"
            ) from None
        set_up(quiet)
        _tell(server, host, listener.getsockname()[1])
        config = uvicorn.Config(
            server.app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=30
        )
        with listener:
            uvicorn.Server(config).run(sockets=[listener])


def _tell(server: Server, host: str, port: int) -> None:
    """What is served, where, and to whom."""
    settings = server.settings
    at = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    print(f"OPENAI_BASE_URL={at}")
    for each in server.models.folder_models:
        print(f"  {each.name}: {each.folder}, {len(each.task.labels)} labels{_cutoff(each, settings)}")
    if not server.models.folder_models:
        print("  no model yet: upload a file and create a fine-tuning job, as you would at OpenAI")
    print(f"  files, jobs and {'log' if settings.log_requests else 'no log'}: {settings.folder}")
    print(f"  keys: {'required' if settings.keys_required else 'not needed on this machine'}", flush=True)


def _cutoff(served: ServedModel, settings: Settings) -> str:
    """What goes to the teacher, for the line of a served model."""
    from fingerpost.evaluation.thresholds import describe_cutoff

    if served.cutoff is None or settings.teacher is None:
        return ""
    target = settings.agreement if settings.accuracy is None else settings.accuracy
    return "; " + describe_cutoff(served.choice, settings.teacher.model, target)


def _task(folder: Path) -> Task | None:
    from fingerpost.task.loader import TASK_FILE, load_task

    return load_task(folder / TASK_FILE) if (folder / TASK_FILE).is_file() else None


def _named(given: list[str]) -> dict[str, Path]:
    """Model folders by name: the folder's, or the one before `=`."""
    from fingerpost.core.errors import InputError

    named: dict[str, Path] = {}
    for each in given:
        name, mark, path = each.partition("=")
        folder = Path(path if mark else each)
        name = name if mark else folder.resolve().name
        if name in named:
            raise InputError(f"two models are called '{name}'; name one of them: NAME={folder}")
        named[name] = folder
    return named


def _teacher(task: Task | None, model: str | None, url: str | None, folder: Path, stack: ExitStack) -> TeacherSettings:
    from fingerpost.core.errors import InputError
    from fingerpost.llm import gguf
    from fingerpost.task.settings import TeacherSettings

    if model is not None:
        return TeacherSettings(model=model, base_url=url)
    if task is None or task.teacher is None:
        raise InputError("which teacher? name its model with --teacher, or a project with a [teacher] with -C")
    if task.teacher.gguf and not task.teacher.recorded:
        address = stack.enter_context(gguf.serving(folder / Path(task.teacher.gguf).expanduser()))
        return task.teacher.model_copy(update={"base_url": address, "concurrency": 1})
    return task.teacher


def _function(given: str) -> Callable[[str], str]:
    """The function that MODULE:FUNCTION names; modules are looked for here, too."""
    import sys
    from importlib import import_module

    from fingerpost.core.errors import InputError

    module, _, name = given.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[[str], str] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--redact {given} cannot be had ({error}); write MODULE:FUNCTION") from None
    finally:
        sys.path.pop(0)
    if not callable(found) or not isinstance(found("test"), str):
        raise InputError(f"--redact {given} is no function from a text to a text")
    return found
