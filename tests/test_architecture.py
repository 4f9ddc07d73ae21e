"""The rules of the house: public names, light import, no stray prompts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "fingerpost"


def modules() -> list[tuple[str, Path]]:
    return [
        (file.relative_to(SOURCE).parts[0].removesuffix(".py"), file)
        for file in SOURCE.rglob("*.py")
        if file != SOURCE / "__init__.py"
    ]


def test_the_public_names() -> None:
    import fingerpost

    assert fingerpost.__all__ == [
        "Cascade",
        "FingerpostError",
        "Message",
        "Prediction",
        "Predictor",
        "Progress",
        "Project",
        "__version__",
        "evaluate",
        "load",
        "train",
    ]
    for name in fingerpost.__all__:
        assert getattr(fingerpost, name) is not None
    with pytest.raises(AttributeError):
        _ = fingerpost.nothing


HEAVY = {
    "torch",
    "transformers",
    "sklearn",
    "scipy",
    "openai",
    "sqlalchemy",
    "polars",
    "numpy",
    "onnxruntime",
    "pydantic",
}


@pytest.mark.parametrize(
    "code", ["import fingerpost", "from fingerpost.cli import app; app(['--help'], standalone_mode=False)"]
)
def test_import_and_help_are_light(code: str) -> None:
    report = f"{code}\nimport sys\nprint('LOADED', *sorted(set(sys.modules) & {HEAVY!r}))"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "LOADED"


def test_no_import_has_effects() -> None:
    for name, file in modules():
        if name == "__main__" or "migrations" in file.parts:
            continue
        for node in ast.parse(file.read_text()).body:
            called = node.value if isinstance(node, ast.Expr) else None
            allowed = isinstance(called, ast.Constant) or ast.unparse(node).startswith(
                ("app.command(", "app.add_typer(")
            )
            assert called is None or allowed, f"{file}: {ast.unparse(node)}"


def test_prompts_are_written_in_one_place_only() -> None:
    for _, file in modules():
        if file != SOURCE / "task" / "prompt.py":
            assert '"role": "system"' not in file.read_text(), file
