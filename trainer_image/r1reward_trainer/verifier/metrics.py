# SPDX-License-Identifier: Apache-2.0
"""The verifier's figures for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class VerifierMetrics:
    """Counters of one verifier, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.samples = Counter(
            "r1reward_verifier_samples",
            "Responses rewarded, by result",
            ["result"],
            registry=self.registry,
        )
        self.judgements = Counter(
            "r1reward_verifier_judgements",
            "Responses by what the judge said: match, mismatch, refused, unknown, unavailable, "
            "skipped",
            ["outcome"],
            registry=self.registry,
        )
        self.judge_cache_hits = Counter(
            "r1reward_verifier_judge_cache_hits",
            "Judgements taken from the cache",
            registry=self.registry,
        )
        self.judge_shared = Counter(
            "r1reward_verifier_judge_shared",
            "Judgements that an equal question, asked at the same time, was waited for",
            registry=self.registry,
        )
        self.judge_cache_bytes = Gauge(
            "r1reward_verifier_judge_cache_bytes",
            "Memory that remembered judgements take up",
            registry=self.registry,
        )
        self.judge_retries = Counter(
            "r1reward_verifier_judge_retries",
            "Calls to the judge made again",
            registry=self.registry,
        )
        self.judge_seconds = Histogram(
            "r1reward_verifier_judge_seconds",
            "Seconds of a successful call to the judge",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.judge_circuit_open = Gauge(
            "r1reward_verifier_judge_circuit_open",
            "1 while the judge is taken to be out",
            registry=self.registry,
        )
