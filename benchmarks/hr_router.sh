#!/usr/bin/env bash
# Real input: messages that people wrote to an assistant about their work, with human labels and the recorded
# answers of a real local LLM.
#
#   hr_router.sh clinc_work.csv clinc_work_labels.csv [MODEL.gguf]
#
# The first file has the columns split, text, gold, teacher (and what is known of each answer), the second label and
# description. With a GGUF file, 240 questions are labelled live as well. Results in ./hr_router_out.
set -euo pipefail
data=$(realpath "$1") labels=$(realpath "$2") gguf=${3:+$(realpath "$3")}
out=${OUT:-hr_router_out}
teacher=qwen2.5-coder-1.5b-instruct-q4_k_m
mkdir -p "$out" && cd "$out"

write_task() { # the labels and descriptions that the teacher was given, and how it is reached
  python - "$labels" "$teacher" "$1" <<'PY' > "$2/task.toml"
import csv, json, sys
labels, teacher, gguf = sys.argv[1:]
print('name = "clinc-work"\ninstructions = "Route what an employee says to an assistant."\nfallback = "other"\n\n[labels]')
for row in csv.DictReader(open(labels)):
    print(f"{row['label']} = {json.dumps(row['description'])}")
print(f'\n[teacher]\nmodel = "{teacher}"')
print(f"gguf = {json.dumps(gguf)}" if gguf else "prices = { input = 0.0, output = 0.0 }")
PY
}

echo "== the teacher's recorded answers; human labels of the test rows only"
rm -rf recorded && mkdir recorded && write_task "" recorded
fingerpost import "$data" -C recorded --label teacher --teacher "$teacher"
fingerpost import "$data" -C recorded --label gold --only test
fingerpost train -C recorded --labels teacher -o recorded/models/student
fingerpost evaluate -C recorded --learning-curve

echo "== the same, trained on human labels"
rm -rf human && mkdir human && write_task "" human
fingerpost import "$data" -C human --label teacher --teacher "$teacher"
fingerpost import "$data" -C human --label gold
fingerpost train -C human --labels human -o human/models/student
fingerpost evaluate -C human

if [[ -n $gguf ]]; then
  echo "== live: the teacher labels 240 questions in two orders each"
  rm -rf live && mkdir live && write_task "$gguf" live
  fingerpost import "$data" -C live --label gold --only test
  fingerpost label -C live --limit 240 --votes 2 --yes
  fingerpost status live
fi
