"""Do time per row and memory stay flat as a project grows?

Usage: large.py [--rows 20000 200000] [--kinds plain template] [--json OUT]

For each kind of texts and each number of rows: a CSV file is written and imported into an empty project, then a tenth as many
new rows, then a teacher's answers to half of the rows; and the plan of `label`, `status` and `predict` are run. Each step is a
process of its own. `plain` texts are made-up sentences; `template` texts are one sentence with other numbers and names, near-duplicates
of each other. Printed are processor seconds, microseconds per row and peak memory; the last lines compare the smallest with
the largest number of rows. The student is one of n-grams and the tiny encoder of the tests. Needs the extra `train`, and a
clone of the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
LABELS = ("billing", "delivery", "other")
TASK = """name = "large"
[teacher]
model = "local"
base_url = "http://127.0.0.1:9/v1"
[labels]
billing = "invoices and payments"
delivery = "parcels and couriers"
other = "everything else"
"""
PLAN = "from fingerpost import Project; plan = Project('.').plan_labels(); print(len(plan.jobs))"

TRAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tiny_encoder import tiny_encoder_folder
import fingerpost
rows = json.loads(sys.argv[2])
fingerpost.train(*zip(*rows), folder=sys.argv[3], encoder=str(tiny_encoder_folder()), epochs=0)
"""


def texts(kind: str, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """(text, label), all texts different."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 8))) for _ in range(5_000)]
    for number in range(count):
        label = draw.choice(LABELS)
        if kind == "template":
            name, street = draw.choices(words, k=2)
            yield (
                f"Dear team, order {seed}{number} of {name} from {street} street has a {label} problem, please help",
                label,
            )
        else:
            yield f"{label} {' '.join(draw.choices(words, k=draw.randint(6, 14)))} {seed}{number}", label


def run(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Processor seconds and peak memory in MB of a process. (A child's peak counts from that of this small process.)"""
    process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(kind: str, count: int, model: Path) -> dict[str, tuple[float, float]]:
    """(processor seconds, peak memory in MB) of each step."""
    command = [sys.executable, "-m", "fingerpost"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "task.toml").write_text(TASK)
        with (folder / "questions.csv").open("w") as questions, (folder / "answers.csv").open("w") as answers:
            questions.write("text\n")
            answers.write("text,label\n")
            for number, (text, label) in enumerate(texts(kind, count)):  # not kept: see `run`
                questions.write(f'"{text}"\n')
                if number % 2:
                    answers.write(f'"{text}",{label}\n')
        with (folder / "more.csv").open("w") as more:
            more.write("text\n")
            more.writelines(f'"{text}"\n' for text, _ in texts(kind, count // 10, seed=1))
        return {
            "import": run([*command, "import", "questions.csv"], folder),
            "import more": run([*command, "import", "more.csv"], folder),
            "import answers": run([*command, "import", "answers.csv", "--teacher", "local"], folder),
            "plan of label": run([sys.executable, "-c", PLAN], folder),
            "status": run([*command, "status"], folder),
            "predict": run([*command, "predict", str(model), "questions.csv", "-o", "out.csv"], folder),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--kinds", nargs="+", default=["plain", "template"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        examples = [example for kind in ("plain", "template") for example in texts(kind, 300)]
        run([sys.executable, "-c", TRAIN, str(TESTS), json.dumps(examples), str(model)], Path(name))
        for kind in given.kinds:
            found = {count: measure(kind, count, model) for count in given.rows}
            least, most = min(found), max(found)
            for step in found[least]:
                for count in given.rows:
                    seconds, memory = found[count][step]
                    per_row = 1e6 * seconds / count
                    print(
                        f"{kind:9} {step:15} {count:>9,} rows  {seconds:7.1f} s  {per_row:7.1f} us/row  {memory:6.0f} MB"
                    )
                    results.append({"kind": kind, "step": step, "rows": count, "cpu_s": seconds, "memory_mb": memory})
                time = found[most][step][0] / most / (found[least][step][0] / least)
                memory = found[most][step][1] / found[least][step][1]
                print(f"{kind:9} {step:15} per row: time {time:.2f}, memory in all {memory:.2f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
