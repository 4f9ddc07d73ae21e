"""A former user of hosted fine-tuning: the same program, the same JSONL, another address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from conftest import TEXTS
from tiny_encoder import tiny_encoder_folder

pytestmark = pytest.mark.slow
SYSTEM = "Route the message.\n- billing: invoices and payments\n- delivery: parcels\n- other: anything else"
PROGRAM = """
import sys, time
from openai import OpenAI

client = OpenAI()  # the address and the key come from the environment, as before
file = client.files.create(file=open("train.jsonl", "rb"), purpose="fine-tune")
job = client.fine_tuning.jobs.create(training_file=file.id, model="gpt-4.1-mini", suffix="router")
while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.2)
print(job.status, job.fine_tuned_model)
answer = client.chat.completions.create(
    model=job.fine_tuned_model,
    messages=[{"role": "system", "content": sys.argv[1]}, {"role": "user", "content": "the courier did not come"}],
)
print(answer.choices[0].message.content)
"""


def test_the_program_runs_with_another_address(tmp_path: Path) -> None:
    lines = [
        {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text},
                      {"role": "assistant", "content": json.dumps({"action": label})}]}
        for label, texts in TEXTS.items() for text in texts
    ]  # fmt: skip
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "program.py").write_text(PROGRAM)
    server = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", "serve", "--port", "0", "--encoder", tiny_encoder_folder().as_posix()],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip().removeprefix("OPENAI_BASE_URL=")
        program = subprocess.run(
            [sys.executable, "program.py", SYSTEM],
            cwd=tmp_path, env={**os.environ, "OPENAI_BASE_URL": address, "OPENAI_API_KEY": "none"}, capture_output=True, text=True,
        )  # fmt: skip
        assert program.returncode == 0, program.stderr
        status, answer = program.stdout.splitlines()
        assert status.startswith("succeeded ft:gpt-4.1-mini:") and ":router:" in status
        assert json.loads(answer) == {"action": "delivery"}
        models = openai.OpenAI(base_url=address, api_key="none").models.list()
        assert [model.id for model in models] == [status.split()[1]]
    finally:
        server.terminate()
        server.communicate()
