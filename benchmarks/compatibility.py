"""Runs outside clients, unchanged, against a server of ours: each in a virtual environment of its own.

Usage: compatibility.py [--only NAME...] [--folder WORK]

A client passes if its script in `clients/` ends well and prints an answer with the right label. The training file is
written from the example's questions; environments are made in WORK (default: a folder in the temporary one) and kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
QUESTIONS = HERE.parent / "examples" / "hr-router" / "questions" / "synthetic.csv"
ASKED, EXPECTED = "could you send me my payslip for october please", "get_payslip"
CLIENTS = {
    "openai_sdk": ["openai"],
    "openai_cli": ["openai<2.35"],
    "dspy_provider": ["dspy"],
    "llama_index_engine": [
        "torch==2.13.0",
        "llama-index-finetuning",
        "mistralai<2",
    ],  # it imports mistralai's version 1
    "scikit_llm": ["scikit-llm==1.4.1"],  # the tunable classifier of 1.4.3 cannot be constructed
    "instructor_cli": ["instructor", "tqdm"],  # its command line imports tqdm without asking for it
}
SYSTEM = 'You route messages of employees. Reply with JSON only, such as {"action": "get_policy"}.'


def write_data(folder: Path) -> None:
    """400 questions for training and 100 for validation, with the labels that they were written for."""
    with QUESTIONS.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))[:500]
    for name, part in (("train", rows[:400]), ("validation", rows[400:])):
        lines = [
            json.dumps({"messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": row["text"]},
                {"role": "assistant", "content": json.dumps({"action": row["intended"]})},
            ]}) for row in part
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def environment(name: str, packages: list[str], folder: Path) -> Path:
    """A virtual environment with the packages, one after the other."""
    place = folder / "environments" / name
    done = place / "ready"
    if not done.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        for package in packages:
            subprocess.run(
                [str(place / "bin" / "pip"), "install", "-q", package], check=True, stderr=subprocess.DEVNULL
            )
        done.touch()
    return place


def run(name: str, folder: Path, url: str) -> tuple[bool, str, float]:
    """Whether the client got the right answer, what it printed, and the seconds it took."""
    place = environment(name, CLIENTS[name], folder)
    script = next(HERE.joinpath("clients").glob(f"{name}.*"))
    command = ["bash", "-euo", "pipefail"] if script.suffix == ".sh" else [str(place / "bin" / "python")]
    began = time.perf_counter()
    ended = subprocess.run(
        [*command, str(script), ASKED], cwd=folder, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "OPENAI_BASE_URL": url, "OPENAI_API_BASE": url,
             "OPENAI_API_KEY": "none",
             "COLUMNS": "200"},
    )  # fmt: skip
    answer = re.search(r"ANSWER (.*)", ended.stdout)
    right = ended.returncode == 0 and answer is not None and EXPECTED in answer[1]
    return right, ended.stdout + ended.stderr, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(CLIENTS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fingerpost-clients")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    server = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", "serve", "--port", "0", "--quiet", "--data", str(folder / "served")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    url = server.stdout.readline().split("=", 1)[1].strip()
    failed = False
    try:
        for name in arguments.only:
            right, output, seconds = run(name, folder, url)
            pip = subprocess.run(
                [str(folder / "environments" / name / "bin" / "pip"), "list", "--format", "freeze"],
                capture_output=True, text=True,
            ).stdout  # fmt: skip
            wanted = re.compile(r"^(openai|dspy|llama-index-finetuning|scikit-llm|instructor)==\S+", re.MULTILINE)
            versions = ", ".join(each[0] for each in wanted.finditer(pip))
            print(f"{name:20} {'passed' if right else 'FAILED'}   {seconds:5.0f} s   {versions}", flush=True)
            if not right:
                failed = True
                print("\n".join(output.splitlines()[-25:]))
    finally:
        server.terminate()
        server.wait(60)
    sys.exit(failed)


if __name__ == "__main__":
    main()
