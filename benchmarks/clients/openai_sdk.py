"""What everyone did, with the official client: two files, a job with a suffix, poll, call the `ft:` model."""

import sys
import time

from openai import OpenAI

client = OpenAI()
train, validation = (
    client.files.create(file=open(name, "rb"), purpose="fine-tune") for name in ("train.jsonl", "validation.jsonl")
)
job = client.fine_tuning.jobs.create(
    training_file=train.id, validation_file=validation.id, model="gpt-4o-mini-2024-07-18", suffix="hr-router"
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
    job = client.fine_tuning.jobs.retrieve(job.id)
print(job.status, job.fine_tuned_model)
answer = client.chat.completions.create(
    model=job.fine_tuned_model, temperature=0, messages=[{"role": "user", "content": sys.argv[1]}]
)
print("ANSWER", answer.choices[0].message.content)
