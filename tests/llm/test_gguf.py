"""A real model run by llama.cpp. FINGERPOST_TEST_GGUF names a GGUF file of an instruct model."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil
import pytest
from conftest import write_questions

from fingerpost.core.errors import TeacherError
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import label, plan_labels
from fingerpost.llm.gguf import serving
from fingerpost.store.project import Store
from fingerpost.task.settings import Task


def running_models() -> list[int]:
    """Ids of the child processes that run a model."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # also raised for a zombie
            if "fingerpost.llm.gguf" in child.cmdline():
                found.append(child.pid)
    return found


def test_a_file_that_is_no_model_is_refused_and_nothing_is_left_running(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(TeacherError, match="cannot load"), serving(tmp_path / "broken.gguf"):
        pass
    assert not running_models()


@pytest.mark.slow
@pytest.mark.skipif("FINGERPOST_TEST_GGUF" not in os.environ, reason="FINGERPOST_TEST_GGUF names no model file")
def test_a_real_model_labels_with_a_warm_prompt_cache(store: Store, task: Task, folder: Path) -> None:
    assert task.teacher is not None
    teacher = task.teacher.model_copy(
        update={"gguf": os.environ["FINGERPOST_TEST_GGUF"], "base_url": None, "prices": None}
    )
    task = task.model_copy(update={"teacher": teacher})
    import_file(store, task, write_questions(folder / "q.txt", 12))
    done = label(task, store, plan_labels(task, store), folder)
    assert done.usable == 12 and done.cost_usd == 0
    assert done.cached_tokens > 0.5 * done.prompt_tokens
    assert not running_models()
