"""Fine-tuning jobs as OpenAI's API has them, for the test teacher: all in memory, nothing is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FineTuning:
    """`polls` is how often a job is still running when it is looked at; `fail` is the reason why all jobs fail."""

    polls: int = 0
    fail: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def handle(self, method: str, path: str, data: bytes) -> tuple[int, bytes]:
        """The status and the body for a request to /v1/fine_tuning/jobs."""
        parts = path.split("?")[0].split("/")[4:]
        if method == "POST" and not parts:
            return 200, json.dumps(self._create(json.loads(data))).encode()
        if not parts:
            return 200, _page(list(self.jobs.values()))
        if parts[0] not in self.jobs:
            return 404, json.dumps({"error": {"message": f"no job {parts[0]}", "type": "x", "code": None}}).encode()
        job = self.jobs[parts[0]]
        if parts[1:] == ["events"]:
            message = (
                f"New fine-tuned model created: {job['fine_tuned_model']}" if job["fine_tuned_model"] else "Running"
            )
            event = {"id": f"{job['id']}-{job['status']}", "object": "fine_tuning.job.event", "message": message,
                     "created_at": 0, "level": "info"}  # fmt: skip
            return 200, _page([event])
        if parts[1:] == ["cancel"]:
            job["status"] = "cancelled"
        elif job["status"] == "running":
            self._poll(job)
        return 200, json.dumps(job).encode()

    def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        key = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[key] = {
            "id": key, "object": "fine_tuning.job", "created_at": 0, "status": "running", "model": request["model"],
            "training_file": request["training_file"], "validation_file": request.get("validation_file"),
            "fine_tuned_model": None, "trained_tokens": None, "error": None, "hyperparameters": {}, "seed": 0,
            "organization_id": "test", "result_files": [], "suffix": request.get("suffix"), "polls": self.polls,
        }  # fmt: skip
        return self.jobs[key]

    def _poll(self, job: dict[str, Any]) -> None:
        job["polls"] -= 1
        if job["polls"] >= 0:
            return
        if self.fail:
            job |= {"status": "failed", "error": {"message": self.fail, "code": "x", "param": None}}
        else:
            name = f"ft:{job['model']}:test:{job['suffix'] or ''}:{job['id'][-1]}"
            job |= {"status": "succeeded", "fine_tuned_model": name, "trained_tokens": 100}


def _page(items: list[dict[str, Any]]) -> bytes:
    return json.dumps({"object": "list", "data": items, "has_more": False}).encode()
