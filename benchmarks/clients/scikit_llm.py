"""scikit-llm's tunable classifier: fit and predict. Its prompt, labels and all, stands in the user's turn."""

import json
import os
import sys

from skllm.config import SKLLMConfig
from skllm.models.gpt.classification.tunable import GPTClassifier

SKLLMConfig.set_openai_key("none")
SKLLMConfig.set_openai_org("none")
SKLLMConfig.set_gpt_url(os.environ["OPENAI_BASE_URL"])
rows = [json.loads(line)["messages"] for line in open("train.jsonl")]
texts, labels = [row[1]["content"] for row in rows], [json.loads(row[2]["content"])["action"] for row in rows]
classifier = GPTClassifier(base_model="gpt-3.5-turbo", n_epochs=1, default_label="none")
classifier.fit(texts, labels)
print("ANSWER", classifier.predict([sys.argv[1]])[0])
