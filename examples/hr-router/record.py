"""Record the example's teacher again: have a GGUF model label all questions with `fingerpost label --record`.

Usage: python record.py MODEL.gguf

Replaces teacher.jsonl in the folder of this script.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
model = Path(sys.argv[1]).expanduser().resolve()
with tempfile.TemporaryDirectory() as scratch:
    shutil.copytree(HERE / "questions", Path(scratch) / "questions")
    task = (HERE / "task.toml").read_text(encoding="utf-8")
    live_task = re.sub(r'^recorded = .*$', f'gguf = "{model}"', task, flags=re.MULTILINE)
    (Path(scratch) / "task.toml").write_text(live_task, encoding="utf-8")
    for arguments in (
        ["import", "questions/synthetic.csv", "--source", "synthetic"],
        ["import", "questions/user.jsonl"],
        ["label", "--record", "teacher.jsonl"],
    ):
        subprocess.run([sys.executable, "-m", "fingerpost", *arguments], cwd=scratch, check=True)
    shutil.copy(Path(scratch) / "teacher.jsonl", HERE / "teacher.jsonl")
