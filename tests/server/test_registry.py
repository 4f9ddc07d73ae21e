"""The model registry: models of folders and of jobs, found, kept, unloaded, damaged."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fingerpost.core.errors import ModelError
from fingerpost.server.inference import registry
from fingerpost.server.inference.registry import CHECKPOINT, ModelRegistry
from fingerpost.server.schemas import ApiError
from fingerpost.store.server import ServerStore
from fingerpost.store.server_rows import JobRow
from fingerpost.students import load
from fingerpost.students.folder import MANIFEST, MODEL_FILE, TOKENIZER_FILE, read_manifest, write_manifest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServerStore]:
    opened = ServerStore(tmp_path / "fingerpost.db")
    yield opened
    opened.close()


def add_job_model(store: ServerStore, student: Path, tuned: Path, name: str) -> Path:
    """A succeeded job with a model; returns the model folder."""
    job = JobRow(id=f"ftjob-{name}", created_at=1, status="succeeded", request={}, model=name)
    store.add_job(job, max_waiting=1)
    shutil.copytree(student, tuned / job.id)
    return tuned / job.id


def test_models_are_found_by_name_and_the_first_is_the_default(
    store: ServerStore, student: Path, tmp_path: Path
) -> None:
    add_job_model(store, student, tmp_path, "tuned")
    models = ModelRegistry({"a": student, "b": student}, store, tmp_path)
    assert [model.name for model in models.folder_models] == ["a", "b"]
    assert asyncio.run(models.find(None)).name == "a"
    assert asyncio.run(models.find("b")).name == "b"
    tuned = asyncio.run(models.find(f"tuned{CHECKPOINT}3"))
    assert tuned.name == "tuned"
    assert asyncio.run(models.find("tuned")) is tuned
    models.unload("tuned")
    assert asyncio.run(models.find("tuned")) is not tuned


def test_missing_and_damaged_models_are_api_errors(store: ServerStore, student: Path, tmp_path: Path) -> None:
    (add_job_model(store, student, tmp_path, "tuned") / "model.onnx").write_bytes(b"broken")
    models = ModelRegistry({}, store, tmp_path)
    for name, status, code in (
        (None, 404, "model_not_found"),
        ("none", 404, "model_not_found"),
        ("tuned", 500, "model_damaged"),
    ):
        with pytest.raises(ApiError) as error:
            asyncio.run(models.find(name))
        assert (error.value.status, error.value.code) == (status, code)


def test_the_least_recently_used_job_model_is_dropped(
    store: ServerStore, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MAX_JOB_MODELS", 2)
    for name in "abc":
        add_job_model(store, student, tmp_path, name)
    models = ModelRegistry({}, store, tmp_path)
    first, second = (asyncio.run(models.find(name)) for name in "ab")
    assert asyncio.run(models.find("a")) is first
    asyncio.run(models.find("c"))
    assert asyncio.run(models.find("a")) is first
    assert asyncio.run(models.find("b")) is not second


def test_a_changed_folder_that_cannot_be_loaded_is_reported_once(
    store: ServerStore, student: Path, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("a", "b")}
    for folder in folders.values():
        shutil.copytree(student, folder)
    models = ModelRegistry(folders, store, tmp_path)
    before = models.folder_models
    for name, damage in (("a", b"{}"), ("b", None)):
        folder = folders[name]
        manifest = read_manifest(folder)
        if damage is not None:
            (folder / TOKENIZER_FILE).write_bytes(damage)
        write_manifest(folder, manifest)
    ((first, problem), (second, none)) = models.reload_changed()
    assert (first, second, none) == ("a", "b", None)
    assert problem is not None and "cannot be loaded" in problem and "\n" not in problem
    assert models.reload_changed() == []
    assert models.folder_models[0] is before[0] and models.folder_models[1] is not before[1]


def test_a_graph_that_the_manifest_does_not_list_is_not_loaded(student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(student, folder)
    manifest = read_manifest(folder)
    files = {name: digest for name, digest in manifest.files.items() if name != MODEL_FILE}
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": files}).model_dump_json())
    with pytest.raises(ModelError, match=f"does not list {MODEL_FILE}"):
        load(folder)
