"""LlamaIndex's fine-tuning engine."""

import sys
import time

from llama_index.core.llms import ChatMessage
from llama_index.finetuning import OpenAIFinetuneEngine

engine = OpenAIFinetuneEngine("gpt-3.5-turbo", "train.jsonl", verbose=True)
engine.finetune()
while engine.get_current_job().status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
model = engine.get_current_job().fine_tuned_model
print(model)
llm = engine.get_finetuned_model(temperature=0)
print("ANSWER", llm.chat([ChatMessage(role="user", content=sys.argv[1])]).message.content)
