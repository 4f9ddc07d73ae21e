"""What Prometheus reads from /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


class Metrics:
    """The server's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        self.requests = Counter("fingerpost_requests_total", "Requests.", ["route", "status"], registry=kept)
        self.seconds = Histogram(
            "fingerpost_request_seconds",
            "From a request's head to its answer's end.",
            ["route"],
            buckets=SECONDS,
            registry=kept,
        )
        self.decisions = Counter(
            "fingerpost_decisions_total", "Decisions, by who answered, and why the teacher did not.",
            ["model", "by", "teacher"], registry=kept,
        )  # fmt: skip
        self.confidence = Histogram(
            "fingerpost_confidence",
            "The student's calibrated confidence.",
            ["model"],
            buckets=CONFIDENCE,
            registry=kept,
        )
        self.teacher_usd = Counter(
            "fingerpost_teacher_usd_total", "Spent on the teacher, in US dollars.", registry=kept
        )
        self.breaker = Gauge("fingerpost_breaker_open", "1 while the teacher is not asked.", registry=kept)
        self.waiting = Gauge("fingerpost_waiting", "Conversations that no thread has taken yet.", registry=kept)
        self.jobs = Gauge("fingerpost_jobs", "Fine-tuning jobs by status.", ["status"], registry=kept)
        self.lost = Counter(
            "fingerpost_log_lost_total", "Requests that were answered but could not be kept.", registry=kept
        )
        self.swaps = Counter("fingerpost_model_swaps_total", "Models loaded anew.", ["result"], registry=kept)

    def render(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
