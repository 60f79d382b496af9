"""What the service counts, in Prometheus' format."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The service's own registry: several services in one process do not disturb each other."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "ragqa_requests_total", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "ragqa_request_seconds", "From arrival to the end of the response.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "ragqa_stage_seconds", "Of one question: queue, retrieve, generate; a batch's share of its time.", ["stage"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.queue = Gauge("ragqa_queue_length", "Questions that wait or are in work.", registry=registry)
        self.batches = Histogram(
            "ragqa_batch_size", "Questions handled together.", ["stage"], buckets=_SIZES, registry=registry
        )
        self.answers = Counter(
            "ragqa_answers_total", "Answers by outcome: answered, abstained, several.", ["outcome"], registry=registry
        )
        self.shared = Counter(
            "ragqa_shared_total", "Questions answered together with the same one in work.", registry=registry
        )
        self.dropped = Counter(
            "ragqa_dropped_total", "Questions whose client left or whose time was up.", registry=registry
        )
        self.tokens = Counter(
            "ragqa_tokens_total", "Tokens of prompts and answers where a generator was asked.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.generations = Counter(
            "ragqa_generations_total", "New generations of the index taken into service.", registry=registry
        )
        self.products = Gauge("ragqa_products", "Products in the live generation.", registry=registry)

    def text(self) -> bytes:
        """All of it, in the text format 0.0.4."""
        return generate_latest(self.registry)
