"""The server's Prometheus metrics, served at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("fingerpost_requests_total", "HTTP requests.", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "fingerpost_request_seconds",
            "Seconds from a request's head to the end of its response.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.decisions = Counter(
            "fingerpost_decisions_total",
            "Decisions, by who answered and why the teacher did not.",
            ["model", "by", "teacher"],
            registry=registry,
        )
        self.decision_checks = Counter(
            "fingerpost_decision_checks_total",
            "Comparisons of a student in service with the upstream endpoint.",
            ["decision", "result"],
            registry=registry,
        )
        self.decision_alarms = Counter(
            "fingerpost_decision_alarms_total",
            "Students that were taken out of service, because they disagreed too often.",
            ["decision"],
            registry=registry,
        )
        self.confidence = Histogram(
            "fingerpost_confidence",
            "The student's calibrated confidence.",
            ["model"],
            buckets=CONFIDENCE,
            registry=registry,
        )
        self.teacher_usd = Counter("fingerpost_teacher_usd_total", "Teacher cost in US dollars.", registry=registry)
        self.breaker_open = Gauge(
            "fingerpost_breaker_open", "1 while the circuit breaker of the teacher is not closed.", registry=registry
        )
        self.waiting = Gauge("fingerpost_waiting", "Conversations that wait for prediction.", registry=registry)
        self.jobs = Gauge("fingerpost_jobs", "Fine-tuning jobs by status.", ["status"], registry=registry)
        self.log_lost = Counter(
            "fingerpost_log_lost_total",
            "Requests that were answered but not written to the request log.",
            registry=registry,
        )
        self.model_swaps = Counter(
            "fingerpost_model_swaps_total", "Reloads of changed models.", ["result"], registry=registry
        )

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
