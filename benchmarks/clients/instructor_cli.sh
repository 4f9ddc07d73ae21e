# instructor's command line: a job from a file, watched by itself, and the list of jobs.
timeout 25 instructor jobs create-from-file train.jsonl --n-epochs 1 --model gpt-3.5-turbo --model-suffix hr || true  # it watches until Ctrl-C
instructor files list
model=$(python -c "
import openai, time
client = openai.OpenAI()
while (job := client.fine_tuning.jobs.list().data[0]).status not in ('succeeded', 'failed', 'cancelled'):
    time.sleep(1)
print(job.fine_tuned_model)")
timeout 8 instructor jobs watch --poll 1 || true
echo "ANSWER $(python -c "
import instructor, openai, sys
from enum import Enum
from pydantic import BaseModel
Action = Enum('Action', {name: name for name in ('get_payslip', 'get_policy', 'book_holiday')})
class Route(BaseModel):
    action: Action
client = instructor.from_openai(openai.OpenAI())
route = client.chat.completions.create(model=sys.argv[1], response_model=Route, messages=[{'role': 'user', 'content': sys.argv[2]}])
print(route.action.value)" "$model" "$1")"
