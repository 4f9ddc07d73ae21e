"""LangChain's runnable for decisions: a choice between all labels, and a predicate that no model knows."""

import json
import sys

from langchain_openai.decisions import Choice, OpenAIDecisions, Predicate

questions = {
    "action": Choice(instructions="Who handles this?", choices=dict.fromkeys(json.load(open("labels.json")))),
    "angry": Predicate(instructions="Is the writer angry?"),
}
response = OpenAIDecisions(model="student").invoke({"input": sys.argv[1], "questions": questions})
found = response.answers["action"]
assert found.confidence == found.probabilities[found.choice] == max(found.probabilities.values()), found
assert abs(sum(found.probabilities.values()) - 1) < 0.001, found
assert response.answers["angry"].type == "refusal", response
print("ANSWER", found.choice)
