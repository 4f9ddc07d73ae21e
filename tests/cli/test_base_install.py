"""The base install loads models and predicts; other commands say which extra they need before they do anything."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT, write_labelled

BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[0] = "fingerpost"
from fingerpost.__main__ import main
main()
"""


def packages(*extras: str) -> set[str]:
    """The import names of what the extras install directly."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {line.split(">")[0].split("=")[0].split("[")[0] for extra in extras for line in table[extra]}
    known = {"scikit-learn": "sklearn", "vl-convert-python": "vl_convert", "python-multipart": "python_multipart"}
    return {known.get(name, name).replace("-", "_") for name in names if name != "fingerpost"}


def run_without(names: set[str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.replace("NAMES", repr(names))
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)


def test_the_base_predicts(student: Path, tmp_path: Path) -> None:
    write_labelled(tmp_path / "x.csv")
    missing = packages("project", "parquet", "train", "serve")
    assert {"polars", "sqlalchemy", "openai", "torch", "scipy", "fastapi"} <= missing
    one = run_without(missing, "predict", str(student), "my invoice is wrong", cwd=tmp_path)
    assert one.returncode == 0 and one.stdout.startswith("billing"), one.stderr
    many = run_without(missing, "predict", str(student), "x.csv", "-o", "out.csv", cwd=tmp_path)
    assert many.returncode == 0 and "30 predictions" in many.stdout, many.stderr
    assert run_without(missing, "docs", "predict", cwd=tmp_path).stdout.startswith("# Predict")
    parquet = run_without(missing, "predict", str(student), "x.csv", "-o", "out.parquet", cwd=tmp_path)
    assert "fingerpost[parquet]" in parquet.stderr and len(parquet.stderr.splitlines()) == 1


def test_projects_need_nothing_of_training_and_serving(folder: Path) -> None:
    write_labelled(folder / "x.csv")
    missing = packages("train", "serve") - packages("project", "parquet")
    for arguments in (["import", "x.csv"], ["status"], ["label"], ["export"], ["costs"]):
        ended = run_without(missing, *arguments, cwd=folder)
        assert "missing" not in ended.stderr and "extra" not in ended.stderr, ended.stderr
        assert ended.returncode == (2 if arguments == ["label"] else 0), "label asks for confirmation"


@pytest.mark.parametrize(
    ("command", "extra"),
    [("review", "train"), ("generate", "train"), ("run", "train"), ("train", "train"), ("evaluate", "train"),
     ("label", "project"), ("status", "project"), ("init", "project"), ("serve", "serve")],
)  # fmt: skip
def test_a_command_says_what_it_needs_first(command: str, extra: str, tmp_path: Path) -> None:
    told = run_without(packages("project", "train", "serve"), command, cwd=tmp_path)
    assert told.returncode == 2
    assert (
        told.stderr
        == f"fingerpost: 'fingerpost {command}' needs the extra '{extra}': pip install 'fingerpost[{extra}]'\n"
    )
