# SPDX-License-Identifier: Apache-2.0
"""The scoring front's figures for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from r1reward_trainer.scoring.protocol import ScoreResponse


class ScoringMetrics:
    """Of one front, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "r1reward_scoring_requests",
            "Requests for scores, by HTTP status; 499 is a client that left",
            ["status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "r1reward_scoring_seconds",
            "Seconds of a request that was answered",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "r1reward_scoring_in_flight",
            "Prompts that are being answered",
            registry=self.registry,
        )
        self.ready = Gauge(
            "r1reward_scoring_ready",
            "1 while the model answers with the job's weights",
            registry=self.registry,
        )
        self.responses = Counter(
            "r1reward_scoring_responses",
            "Responses of the model, by whether they have a verdict",
            ["verdict"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "r1reward_scoring_tokens",
            "Tokens that the model wrote",
            registry=self.registry,
        )
        self.comparisons = Counter(
            "r1reward_scoring_comparisons",
            "Pairs, by whether both orders have the same verdict",
            ["orders_agree"],
            registry=self.registry,
        )

    def note(self, response: ScoreResponse, seconds: float) -> None:
        """Counts a response."""
        self.seconds.observe(seconds)
        for comparison in response.comparisons:
            self.comparisons.labels(orders_agree=str(comparison.orders_agree).lower()).inc()
            for order in comparison.orders:
                self.responses.labels(verdict="none" if order.verdict is None else "given").inc()
                self.tokens.inc(order.tokens)
