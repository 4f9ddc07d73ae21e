"""Runs outside clients, unchanged, against a server of ours: each in an environment of its own, for Python or Node.

Usage: compatibility.py [--only NAME...] [--folder WORK]

A client passes if its script in `clients/` ends well and prints an answer with the right label. The training file is
written from the example's questions, with a student that is served as `student`; a client may train another one. Student
and environments are made in WORK (default: a folder in the temporary one) and kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
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
    "instructor_client": ["instructor"],
    "langchain_chat": ["langchain", "langchain-openai"],
    "langchain_decisions": ["langchain-openai"],
    "litellm_completion": ["litellm"],
    "pydantic_ai_agent": ["pydantic-ai-slim[openai]"],
    "openai_agents_triage": ["openai-agents"],
    "haystack_generator": ["haystack-ai"],
    "openai_node": ["openai", "zod"],
    "ai_sdk": ["ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "zod"],
    "langchain_node": ["@langchain/openai", "@langchain/core", "zod"],
    "instructor_node": ["@instructor-ai/instructor", "openai", "zod"],
}
SYSTEM = 'You route messages of employees. Reply with JSON only, such as {"action": "get_policy"}.'


def write_data(folder: Path) -> None:
    """400 questions for training and 100 for validation, with the labels that they were written for; and the labels."""
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
    (folder / "labels.json").write_text(json.dumps(sorted({row["intended"] for row in rows[:400]})))


def train(folder: Path) -> Path:
    """A student of the training file."""
    student = folder / "models" / "student"
    if not student.is_dir():
        subprocess.run(
            [sys.executable, "-m", "fingerpost", "train", str(folder / "train.jsonl"), "-o", str(student),
             "--epochs", "0", "--quiet"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return student


def script_of(name: str) -> Path:
    """The client's script."""
    return next(HERE.joinpath("clients").glob(f"{name}.*"))


def environment(name: str, folder: Path) -> Path:
    """The client's environment: for Python a virtual one, with its packages one after the other; for Node a package."""
    place = folder / "environments" / name
    done = place / "ready"
    if done.is_file():
        return place
    if script_of(name).suffix == ".mjs":
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}')
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *CLIENTS[name]], cwd=place, check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        for package in CLIENTS[name]:
            subprocess.run(
                [str(place / "bin" / "pip"), "install", "-q", package], check=True, stderr=subprocess.DEVNULL
            )
    done.touch()
    return place


def versions(name: str, folder: Path) -> str:
    """The client's packages with their versions."""
    place = folder / "environments" / name
    names = [re.split(r"(?<!^)[\[<=>@]", package)[0] for package in CLIENTS[name]]
    if script_of(name).suffix == ".mjs":
        found = {each: json.loads((place / "node_modules" / each / "package.json").read_text()) for each in names}
    else:
        pip = [str(place / "bin" / "pip"), "list", "--format", "json"]
        listed = json.loads(subprocess.run(pip, capture_output=True, text=True, check=True).stdout)
        found = {each["name"]: each for each in listed}
    return ", ".join(f"{each} {found[each]['version']}" for each in names)


def run(name: str, folder: Path, url: str) -> tuple[bool, str, float]:
    """Whether the client got the right answer, what it printed, and the seconds it took."""
    place, script = environment(name, folder), script_of(name)
    command = ["bash", "-euo", "pipefail"] if script.suffix == ".sh" else [str(place / "bin" / "python")]
    if script.suffix == ".mjs":
        script, command = Path(shutil.copy(script, place)), ["node"]  # imports are found from where the script is
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
    os.environ["HF_HUB_OFFLINE"] = "1"
    write_data(folder)
    student = train(folder)
    server = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", "serve", "--port", "0", "--quiet", "--data", str(folder / "served"),
         f"student={student}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    url = server.stdout.readline().split("=", 1)[1].strip()
    failed = False
    try:
        for name in arguments.only:
            right, output, seconds = run(name, folder, url)
            verdict = "passed" if right else "FAILED"
            print(f"{name:20} {verdict}   {seconds:5.0f} s   {versions(name, folder)}", flush=True)
            if not right:
                failed = True
                print("\n".join(output.splitlines()[-25:]))
    finally:
        server.terminate()
        server.wait(60)
    sys.exit(failed)


if __name__ == "__main__":
    main()
