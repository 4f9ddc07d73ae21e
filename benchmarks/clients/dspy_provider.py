"""DSPy's OpenAI provider: the job object, the fine-tuning, and the model through `dspy.LM`."""

import json
import os
import sys

import dspy
from dspy.clients.openai import OpenAIProvider, TrainingJobOpenAI
from dspy.clients.utils_finetune import TrainDataFormat

rows = [json.loads(line) for line in open("train.jsonl")]
job = TrainingJobOpenAI(
    thread=None,
    model="openai/gpt-4o-mini-2024-07-18",
    train_data=rows,
    train_data_format=TrainDataFormat.CHAT,
    train_kwargs={},
)
model = OpenAIProvider.finetune(job, "openai/gpt-4o-mini-2024-07-18", rows, TrainDataFormat.CHAT, {"n_epochs": 1})
lm = dspy.LM(f"openai/{model}", api_base=os.environ["OPENAI_BASE_URL"], cache=False)
print("ANSWER", lm(messages=[{"role": "user", "content": sys.argv[1]}])[0])
