#!/usr/bin/env bash
# Banking77 with the recorded answers of a commercial LLM: files alone, without a project.
#
#   banking77.sh banking77_deepseek.csv
#
# The file has the columns split, text, gold, teacher. Trained on the teacher's answers, then on human labels; measured
# against human labels. Results in ./banking77_out.
set -euo pipefail
data=$(realpath "$1")
out=${OUT:-banking77_out}
mkdir -p "$out" && cd "$out"
for labels in teacher gold; do
  echo "== trained on: $labels"
  fingerpost train "$data" --label "$labels" -o "on_$labels"
  fingerpost evaluate "on_$labels" "$data" --label gold --teacher teacher --json "$labels.json" --html "$labels.html"
done
