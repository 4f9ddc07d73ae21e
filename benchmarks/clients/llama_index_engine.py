"""LlamaIndex's fine-tuning engine."""

import sys
import time

from llama_index.core.llms import ChatMessage
from llama_index.finetuning import OpenAIFinetuneEngine

# its check of the file counts tokens with tiktoken, which downloads: left out, for machines without a network
engine = OpenAIFinetuneEngine("gpt-3.5-turbo", "train.jsonl", verbose=True, validate_json=False)
engine.finetune()
while engine.get_current_job().status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
model = engine.get_current_job().fine_tuned_model
print(model)
llm = engine.get_finetuned_model(temperature=0)
print("ANSWER", llm.chat([ChatMessage(role="user", content=sys.argv[1])]).message.content)
