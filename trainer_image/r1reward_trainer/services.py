# SPDX-License-Identifier: Apache-2.0
"""The services of an rl attempt as rank 0 uses them: rollout servers and verifier."""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from torch import Tensor

from r1reward_api.constants import Role
from r1reward_api.reasons import Reason
from r1reward_api.wire.runconfig import RunConfig, stage_prefix
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import Row
from r1reward_trainer.logs.services import service_logs
from r1reward_trainer.outcome import ConfigurationError, StageError
from r1reward_trainer.render import Prompt, Renderer
from r1reward_trainer.rollout import (
    FleetOptions,
    RolloutFleet,
    WeightFile,
    WeightPublisher,
    WeightVersion,
    stored_weights,
)
from r1reward_trainer.rollout.failures import rollout_errors, stored_weight_errors
from r1reward_trainer.sampling import (
    Answer,
    answers_of,
    generate_requests,
    judged_samples,
)
from r1reward_trainer.storage.outputs import input_output
from r1reward_trainer.storage.s3 import Stopped, Store
from r1reward_trainer.verifier.client import VerifierClient
from r1reward_trainer.verifier.protocol import Reward

logger = logging.getLogger(__name__)

PRESIGN_SECONDS = 3600
"""A server that comes late still reads the weights for so long."""
ROLLOUT_WEIGHTS = "rollout-weights"
STOP_POLL_SECONDS = 0.5

T = TypeVar("T")


class Services:
    """Connections to the attempt's services, made on entering the context: on rank 0 alone.

    Raises:
        ConfigurationError: when the run configuration lacks one of them.
    """

    def __init__(self, config: RunConfig, context: StageContext) -> None:
        spec, addresses = config.spec.rl, config.services
        self._token = context.token or ""
        self._rollout_host = addresses.rollout_host or ""
        self._verifier_url = addresses.verifier_url or ""
        if spec is None or not (self._token and self._rollout_host and self._verifier_url):
            raise ConfigurationError(
                Reason.INVALID_SPEC,
                "rl needs spec.rl, services.rolloutHost, services.verifierUrl and the attempt's "
                "token",
            )
        self._config = config
        self._store = context.store
        self._stop = context.stop
        self._spec = spec
        self._publisher = WeightPublisher(
            _UntilStopped(context.store, context.stop),
            prefix=f"{config.attempt_prefix}/{ROLLOUT_WEIGHTS}",
            attempt=config.attempt,
            work_dir=context.scratch / ROLLOUT_WEIGHTS,
        )

    def __enter__(self) -> Self:
        store, judge = self._store, self._spec.verifier.judge
        self._fleet = RolloutFleet(
            FleetOptions(
                service=self._rollout_host,
                job_uid=self._config.job.uid,
                port=self._config.services.rollout_port,
            ),
            token=self._token,
            presign=lambda key: store.presign_get(key, PRESIGN_SECONDS),
        )
        # Up to three judge calls may stand behind a reward.
        slow = 0.0 if judge is None else 3.0 * judge.timeout_seconds
        self._verifier = VerifierClient(
            self._verifier_url, self._token, deadline_seconds=600.0 + slow, round_seconds=slow
        )
        # Each ask of several verifiers comes to one of them by chance.
        verifiers = self._spec.verifier.replicas
        asks = 1 if verifiers == 1 else 2 * verifiers
        self._logs = ExitStack()
        self._logs.enter_context(
            service_logs(
                store,
                self._config,
                {Role.ROLLOUT: self._fleet.logs, Role.VERIFIER: lambda: self._verifier.logs(asks)},
            )
        )
        self._pool = ThreadPoolExecutor(2, "services")
        self._scoring: Future[list[Reward]] | None = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._logs.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._fleet.close()
        self._verifier.close()

    def use_starting_weights(self) -> bool:
        """The servers take the stage's starting model, which lies in storage already.

        Returns:
            False after SIGTERM.
        """
        ref = self._config.inputs["model"]
        output = input_output(self._store, self._config, "model")
        prefix = f"{stage_prefix(ref.stage, ref.key)}/{output.path}"
        files = [
            WeightFile(f"{prefix}/{f.path}", f.sha256, f.bytes)
            for f in output.files
            if f.path.endswith(".safetensors")
        ]
        weights = stored_weights(f"{self._config.attempt}-0", files)
        with stored_weight_errors(self._store, weights):
            return self._bring(weights)

    def publish(self, step: int, tensors: Iterable[tuple[str, Tensor]]) -> bool:
        """The servers take these weights as those after a step.

        Returns:
            False after SIGTERM, which ends the upload too: the checkpoint comes first.
        """
        try:
            weights = self._publisher.publish(step, tensors)
        except Stopped:
            return False
        return self._bring(weights)

    def sample(
        self, step: int, rows: Sequence[Row], prompts: Mapping[int, Prompt], renderer: Renderer
    ) -> list[Answer] | None:
        """Answers to a step's prompts, in the order of the prompts; None after SIGTERM.

        Args:
            rows: of the step, by place.
            prompts: of all places.
        """
        requests = generate_requests(
            step,
            rows,
            [prompts[place] for place in range(len(rows))],
            self._spec.sampling,
            self._spec.seed,
            renderer.end_token_id,
            self._config.serving.max_model_length,
        )
        with rollout_errors():
            pending = self._pool.submit(self._fleet.generate, requests)
            results = unless_stopped(pending, self._stop)
        return None if results is None else answers_of(results)

    def begin_scoring(
        self, answers: Sequence[Answer], rows: Sequence[Row], renderer: Renderer
    ) -> None:
        """Asks for rewards in a thread, while log-probs are computed."""
        samples = judged_samples(answers, rows, renderer)
        self._scoring = self._pool.submit(self._verifier.score, samples)

    def rewards(self) -> list[Reward] | None:
        """The rewards that were asked for, in the order of the answers; None after SIGTERM."""
        if self._scoring is None:
            raise ValueError("begin_scoring comes first")
        return unless_stopped(self._scoring, self._stop)

    def delete_earlier_weights(self) -> None:
        """Removes what earlier attempts published for their servers; this one's go with its
        result."""
        for attempt in range(1, self._config.attempt):
            prefix = f"{self._config.run_prefix}/attempt-{attempt}/{ROLLOUT_WEIGHTS}"
            with suppress(StageError):
                self._store.delete_prefix(prefix)

    def _bring(self, weights: WeightVersion) -> bool:
        with rollout_errors():
            pending = self._pool.submit(self._fleet.set_weights, weights)
            timings = unless_stopped(pending, self._stop)
        if timings is None:
            return False
        logger.info("weights %s on %d rollout servers", weights.version, len(timings))
        return True


class _UntilStopped:
    """The store as rollout weights need it, which take long to upload: not after SIGTERM."""

    def __init__(self, store: Store, stop: threading.Event) -> None:
        self._store = store
        self._stop = stop
        self.presign_get = store.presign_get
        self.delete = store.delete

    def put_file(self, path: Path, key: str) -> None:
        """Raises Stopped after SIGTERM."""
        self._store.put_file(path, key, self._stop)


def unless_stopped(pending: Future[T], stop: threading.Event) -> T | None:
    """The result, or None as soon as SIGTERM arrives: the pod has seconds left to save."""
    while not pending.done():
        if stop.is_set():
            return None
        wait([pending], timeout=STOP_POLL_SECONDS)
    return pending.result()
