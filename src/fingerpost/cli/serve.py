"""The command `serve`: serve students with an OpenAI-compatible API."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.options import Folder, is_project, one_folder
from fingerpost.core.errors import InputError
from fingerpost.core.utils import locked, require_extra
from fingerpost.llm import gguf
from fingerpost.project import STUDENT
from fingerpost.server.settings import Settings
from fingerpost.store.server import SERVED
from fingerpost.students.folder import MANIFEST
from fingerpost.task.loader import TASK_FILE, load_task
from fingerpost.task.settings import Task, TeacherSettings, endpoint

if TYPE_CHECKING:
    from fingerpost.server.app import Server
    from fingerpost.server.inference.registry import ServedModel

EVERY_ADDRESS = ("0.0.0.0", "::")
"""What a server may listen on, and no client can connect to."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
UPSTREAM_KEY_VARIABLE = "FINGERPOST_UPSTREAM_KEY"
SECRET_VARIABLE = "FINGERPOST_WEBHOOK_SECRET"

Data = typer.Option(
    None,
    "--data",
    help="Folder of the server's files, jobs, keys and logs.",
    show_default="the folder 'served' in the project's folder",
)


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Model folders to serve, as FOLDER or NAME=FOLDER; or a project, whose student is served."),
    ] = None,
    folder: Path = Folder,
    data: Path | None = Data,
    host: Annotated[
        str, typer.Option(help="Address to listen on. API keys are required unless it is local.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free port.")] = 8000,
    agreement: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=1,
            help="Target agreement with the teacher, e.g. 0.98; less confident requests are forwarded to the teacher; the "
            "cut-off is chosen on labelled rows.",
        ),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=1,
            help="Target accuracy by human labels, e.g. 0.95; less confident requests are forwarded to the teacher; the "
            "cut-off is chosen on labelled rows.",
        ),
    ] = None,
    cutoff: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Requests on which the student is less confident are forwarded to the teacher."
        ),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="The teacher's model. Default: the one in task.toml.")] = None,
    teacher_url: Annotated[
        str | None, typer.Option(help="Base URL of the endpoint of --teacher. Default: OpenAI.")
    ] = None,
    teacher_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for the teacher before the student's answer is used.")
    ] = 10.0,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Limit in US dollars on what this server may spend on the teacher.")
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Proxy mode: pass requests on to this OpenAI-compatible base URL, with the caller's key. Classification "
            "requests ('decisions') are learnt, and students can take them over.",
        ),
    ] = None,
    disagreement: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Proxy mode: the largest share of a student's answers that may differ from the upstream's.",
        ),
    ] = 0.05,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto", help="Proxy mode: take decisions from observe to on without being asked, when that is proven."
        ),
    ] = False,
    panel: Annotated[
        int,
        typer.Option(
            min=0,
            max=500,
            metavar="N",
            help="Proxy mode: send N stored requests of each decision to the upstream again every day, to detect a change of "
            "its model. They are billed to FINGERPOST_UPSTREAM_KEY. Default: 0, which is off.",
        ),
    ] = 0,
    encoder: Annotated[
        str,
        typer.Option(
            help="Sentence encoder that fine-tuning jobs start from: a folder, a hub name, or auto, by the texts' language."
        ),
    ] = "auto",
    base: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="Base language model of fine-tuning jobs whose replies are no labels: a GGUF file, a folder or a hub name. With "
            "NAME=, only for jobs that ask for this model, such as gpt-4o-mini=SmolLM2.gguf. Can be repeated.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Base URL of an OpenAI-compatible inference server, such as vLLM, that generates text for the language models. It must "
            "serve each one under the same name. Default: llama.cpp for GGUF bases, else PyTorch.",
        ),
    ] = None,
    require_keys: Annotated[
        bool, typer.Option("--require-keys", help="Require API keys also for local requests.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="A web page that may use the server from a browser, such as https://app.example.com. Can be repeated."
        ),
    ] = None,
    log_requests: Annotated[bool, typer.Option(help="Log requests, for 'fingerpost import --from-log'.")] = True,
    keep_days: Annotated[float, typer.Option(min=0, help="Days that logged requests are kept.")] = 30.0,
    redact: Annotated[
        str | None, typer.Option(help="Function that redacts texts before they are logged, as MODULE:FUNCTION.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for predictions.")] = 1,
    training_threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for a fine-tuning job. Default: all processors but one.")
    ] = None,
    max_jobs: Annotated[int, typer.Option(min=1, help="Maximum number of queued fine-tuning jobs.")] = 100,
    max_upload: Annotated[int, typer.Option(min=1, help="Maximum size of an uploaded file in megabytes.")] = 512,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Limit per API key.")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            help="URL that receives a POST request when a job or batch has ended, or a decision has an alarm."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log only errors.")] = False,
) -> None:
    """Serve students with an OpenAI-compatible API: chat, files, fine-tuning jobs, batches."""
    folder, models = _project_of(folder, models or [])
    task = _load_task_if_any(folder)
    loopback = host in LOOPBACK
    targets = [value for value in (agreement, accuracy, cutoff) if value is not None]
    if len(targets) > 1:
        raise InputError("give one of --agreement, --accuracy and --cutoff, because each of them sets the cut-off")
    if not targets and (teacher or teacher_url or budget is not None):
        raise InputError("it is not set which requests go to the teacher; give --agreement, --accuracy or --cutoff")
    if panel and (upstream is None or not os.environ.get(UPSTREAM_KEY_VARIABLE)):
        raise InputError(f"--panel needs --upstream, and the upstream's key in {UPSTREAM_KEY_VARIABLE}")
    with ExitStack() as stack:
        forward_to = _teacher_settings(task, teacher, teacher_url, folder, stack) if targets else None
        settings = Settings(
            folder=data or folder / SERVED,
            models=_named_folders(models),
            project=folder if task is not None else None,
            task=task,
            teacher=forward_to,
            teacher_timeout_s=teacher_timeout,
            budget_usd=budget,
            cutoff=cutoff,
            agreement=agreement,
            accuracy=accuracy,
            upstream=None if upstream is None else _endpoint(upstream),
            upstream_key=os.environ.get(UPSTREAM_KEY_VARIABLE),
            disagreement=disagreement,
            auto=auto,
            panel=panel,
            encoder=encoder,
            bases=_bases(base or []),
            engine=None if engine is None else _endpoint(engine, "--engine"),
            keys_required=require_keys or not loopback,
            allowed_hosts=(*LOOPBACK, host),
            cors_origins=tuple(cors_origin or ()),
            log_requests=log_requests,
            keep_days=keep_days,
            redact=_import_function(redact) if redact else None,
            threads=threads,
            training_threads=training_threads or max(1, (os.cpu_count() or 2) - 1),
            max_jobs=max_jobs,
            max_upload=max_upload * 1_000_000,
            requests_per_minute=requests_per_minute,
            webhook=webhook,
            webhook_secret=os.environ.get(SECRET_VARIABLE),
        )
        _run(settings, host, port, quiet)


def _run(settings: Settings, host: str, port: int, quiet: bool) -> None:
    """Run the server until it is stopped.

    Raises:
        InputError: the folder or the port is in use, or API keys are required and there is none.
    """
    import uvicorn

    from fingerpost.server.app import Server
    from fingerpost.server.ops.connections import LimitedProtocol, most_connections
    from fingerpost.server.ops.logs import set_up

    os.umask(0o077)  # what the server stores are people's messages
    settings.folder.mkdir(parents=True, exist_ok=True)
    taken = f"another server uses {settings.folder}; stop it, or give another folder with --data"
    with locked(settings.folder / "lock", taken):
        server = Server(settings)
        if settings.keys_required and not any(row.revoked_at is None for row in server.store.all_keys()):
            raise InputError(
                f"API keys are required, but there is none; create one with 'fingerpost keys add NAME --data "
                f"{settings.folder}'"
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except OSError as error:
            listener.close()
            raise InputError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port"
            ) from None
        set_up(quiet)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again after it has stopped
        _print_summary(server, host, listener.getsockname()[1])
        LimitedProtocol.most = most_connections()
        config = uvicorn.Config(
            server.app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=30,
            http=LimitedProtocol,
        )  # fmt: skip
        with listener:
            uvicorn.Server(config).run(sockets=[listener])


def _print_summary(server: Server, host: str, port: int) -> None:
    """Print the server's address, models, folder and whether API keys are required."""
    from fingerpost.server.inference.registry import ServedModel

    settings = server.settings
    reached_at = socket.gethostname() if host in EVERY_ADDRESS else host
    base_url = f"http://{f'[{reached_at}]' if ':' in reached_at else reached_at}:{port}/v1"
    print(f"OPENAI_BASE_URL={base_url}")
    for model in server.models.named_models:
        if isinstance(model, ServedModel):
            print(
                f"  {model.name}: {model.folder}, {len(model.task.labels)} labels{_describe_forwarding(model, settings)}"
            )
        else:
            print(f"  {model.name}: {model.folder}, a language model")
    if settings.upstream is not None:
        print(f"  everything else: {settings.upstream}, and its decisions are learnt (fingerpost decisions)")
    elif not server.models.named_models:
        print("  no model yet: upload a file and create a fine-tuning job with any OpenAI client")
    print(f"  files, jobs and {'log' if settings.log_requests else 'no log'}: {settings.folder}")
    print(f"  keys: {'required' if settings.keys_required else 'not needed on this machine'}", flush=True)


def _describe_forwarding(served: ServedModel, settings: Settings) -> str:
    """Which requests to a model are forwarded to the teacher; empty if none are."""
    from fingerpost.evaluation.thresholds import describe_cutoff

    if served.cutoff is None or settings.teacher is None:
        return ""
    target = settings.agreement if settings.accuracy is None else settings.accuracy
    found = "; " + describe_cutoff(served.choice, settings.teacher.model, target)
    choice = served.choice
    if not choice.lowers_accuracy:
        return found
    return (
        f"{found}\n  warning: of the {choice.unsure:,} rows below this cut-off with a human label, the student is right on "
        f"{choice.student_right:,} and {settings.teacher.model} on {choice.teacher_right:,}: asking it costs accuracy and "
        "money; a lower --cutoff, or none, is better"
    )


def _project_of(folder: Path, models: list[str]) -> tuple[Path, list[str]]:
    """The project's folder and the models to serve, where the project is named in place of a model."""
    named = [Path(model) for model in models if is_project(Path(model)) and not (Path(model) / MANIFEST).is_file()]
    for project in named:
        folder = one_folder(folder, project)
        student = project / "models" / STUDENT
        found = [str(student)] if (student / MANIFEST).is_file() else []
        models = [*(model for model in models if Path(model) != project), *found]
    return folder, models


def _load_task_if_any(folder: Path) -> Task | None:
    """The task of a project folder; None if the folder has no task.toml."""
    return load_task(folder / TASK_FILE) if (folder / TASK_FILE).is_file() else None


def _named_folders(arguments: list[str]) -> dict[str, Path]:
    """Model folders by name: the name before `=`, else the folder's name.

    Raises:
        InputError: two models have the same name.
    """
    folders: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        folder = Path(path if equals else argument)
        name = name if equals else folder.resolve().name
        if name in folders:
            raise InputError(f"two models have the name '{name}'; rename one of them: NAME={folder}")
        folders[name] = folder
    return folders


def _bases(arguments: list[str]) -> dict[str, str]:
    """Base language models by the name that jobs ask for; that of the name `*` stands for all others.

    Raises:
        MissingExtra: the extra `lora` is not installed.
        InputError: two have the same name, or a file does not exist.
    """
    if arguments:
        require_extra("lora", "--base")
    bases: dict[str, str] = {}
    for argument in arguments:
        name, equals, model = argument.partition("=")
        name, model = (name, model) if equals else ("*", argument)
        if name in bases:
            raise InputError(f"--base names two models for {'all jobs' if name == '*' else name}; give one of them")
        path = Path(model).expanduser()
        if path.suffix.lower() == ".gguf" and not path.is_file():
            raise InputError(f"--base: there is no file {model}; correct the path")
        bases[name] = str(path.resolve()) if path.exists() else model
    return bases


def _teacher_settings(
    task: Task | None, model: str | None, url: str | None, folder: Path, stack: ExitStack
) -> TeacherSettings:
    """The teacher of the command line, else of task.toml. A GGUF teacher is served until the stack closes.

    Raises:
        InputError: there is no teacher.
    """
    if model is not None:
        return TeacherSettings(model=model, base_url=url)
    if task is None or task.teacher is None:
        raise InputError(
            "there is no teacher; give its model with --teacher, or a project that has a [teacher] with -C"
        )
    if task.teacher.gguf and not task.teacher.recorded:
        address = stack.enter_context(gguf.serving(folder / Path(task.teacher.gguf).expanduser()))
        return task.teacher.model_copy(update={"base_url": address, "concurrency": 1})
    return task.teacher


def _endpoint(url: str, option: str = "--upstream") -> str:
    """The address of an endpoint.

    Raises:
        InputError: it is none.
    """
    try:
        return endpoint(url)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _import_function(path: str) -> Callable[[str], str]:
    """Import the function MODULE:FUNCTION. The current folder is searched for the module, too.

    Raises:
        InputError: it cannot be imported, or does not map a string to a string.
    """
    module, _, name = path.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[[str], str] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--redact {path} cannot be imported ({error}); write MODULE:FUNCTION") from None
    finally:
        sys.path.pop(0)
    if not callable(found) or not isinstance(found("test"), str):
        raise InputError(f"--redact {path} must return a string for a string; correct the function")
    return found
