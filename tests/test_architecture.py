"""The rules of the house: layers, public names, light import, README commands, no stray prompts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "fingerpost"
LAYERS = {
    "types": 0, "errors": 0, "chunks": 0, "lock": 1,
    "text": 1, "prompt": 2, "task": 3,  # rules, each on the ones before it
    "opinions": 2, "consensus": 1, "cutoff": 1, "queue": 2, "metrics": 1, "chatdata": 3, "compare": 2, "bias": 3, "grouping": 2,
    "briefs": 4, "gate": 4,
    "store": 4, "llm": 4, "artifact": 4, "intake": 4,
    "students": 5,
    "evidence": 6, "examples": 7, "gap": 6,
    "asking": 6, "posting": 7, "deciding": 7, "drafting": 7,
    "ingest": 8, "generate": 8, "label": 8, "review": 8, "define": 8, "train": 8, "evaluate": 8, "export": 8,
    "report": 9, "server": 9, "cli": 10, "__main__": 11,
}  # fmt: skip


def imports(file: Path) -> set[str]:
    """The modules of this package that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "fingerpost":
                found |= {alias.name for alias in node.names if alias.name in LAYERS}
            elif node.module.startswith("fingerpost."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fingerpost.")}
    return found


def modules() -> list[tuple[str, Path]]:
    return [
        (file.relative_to(SOURCE).parts[0].removesuffix(".py"), file)
        for file in SOURCE.rglob("*.py")
        if file != SOURCE / "__init__.py"
    ]


def test_every_module_has_a_layer_and_imports_only_from_below() -> None:
    for name, file in modules():
        for other in imports(file) - {name}:
            assert LAYERS[other] < LAYERS[name], f"{file} (layer {LAYERS[name]}) imports {other} ({LAYERS[other]})"


def test_no_circles_inside_the_packages() -> None:
    for package in ("prompt", "store", "llm", "intake", "students", "report", "server", "cli"):
        edges: dict[str, set[str]] = {}
        for file in (SOURCE / package).rglob("*.py"):
            here = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
            edges[here] = {
                node.module.removeprefix("fingerpost.")
                for node in ast.parse(file.read_text()).body
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"fingerpost.{package}.")
            }
        done: set[str] = set()
        while ready := {name for name, needed in edges.items() if name not in done and needed <= done}:
            done |= ready
        assert done == set(edges), f"a circle among {set(edges) - done}"


def test_the_public_names() -> None:
    import fingerpost

    assert fingerpost.__all__ == [
        "FingerpostError",
        "Message",
        "Prediction",
        "Predictor",
        "__version__",
        "load",
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
    for name, file in modules():
        if name != "prompt":
            assert '"role": "system"' not in file.read_text(), file
