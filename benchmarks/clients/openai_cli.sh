# The `openai` command line: upload, create, poll, chat.
field() { python -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }
file=$(openai api files.create -f train.jsonl -p fine-tune | field id)
job=$(openai api fine_tuning.jobs.create -m gpt-4o-mini-2024-07-18 -F "$file" -s hr | field id)
while status=$(openai api fine_tuning.jobs.retrieve -i "$job" | field status); [ "$status" != succeeded ]; do
  case $status in failed | cancelled) exit 1 ;; esac
  sleep 1
done
openai api fine_tuning.jobs.list_events -i "$job" | head -c 300; echo
model=$(openai api fine_tuning.jobs.retrieve -i "$job" | field fine_tuned_model)
openai api models.list | grep -c ft: > /dev/null
echo "ANSWER $(openai api chat.completions.create -m "$model" -g user "$1")"
