# SPDX-License-Identifier: Apache-2.0
"""The endpoint to which stage pods push their progress.

`POST /v1/progress/<namespace>/<job>` with a projected service-account token. Only a
live pod of the job's current stage and attempt is believed: its UID stands in the
token, and the pod itself in this process's memory, so any replica can answer. The
report becomes `status.progress` under a field manager of its own.
"""

import hashlib
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from r1reward_api.constants import (
    API_VERSION,
    LABEL_JOB,
    LABEL_JOB_UID,
    PROGRESS_AUDIENCE,
    PROGRESS_FIELD_MANAGER,
)
from r1reward_api.wire.progress import Progress
from r1reward_operator.http import Answer, Request
from r1reward_operator.kube.bucket import TokenBucket
from r1reward_operator.kube.client import JsonObject, KubeClient
from r1reward_operator.kube.clock import Clock
from r1reward_operator.kube.errors import ApiError, NotFound, TooManyRequests
from r1reward_operator.observe import describe
from r1reward_operator.observed import attempt_of
from r1reward_operator.plan.times import format_time
from r1reward_operator.resources import R1REWARDJOBS
from r1reward_operator.stores import BY_UID, Stores

logger = logging.getLogger(__name__)

BODY_LIMIT = 16 * 1024
MIN_INTERVAL_SECONDS = 0.5
"""Reports of one pod that come faster are refused."""
REVIEW_SECONDS = 60.0
"""How long a reviewed token is believed without asking again."""

_PATH = re.compile(r"/v1/progress/([a-z0-9][-a-z0-9.]{0,252})/([a-z0-9][-a-z0-9.]{0,252})")
_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_REMEMBERED = 4096


@dataclass(frozen=True)
class _Reviewed:
    """Whose token it is.

    Attributes:
        pod_uid: None for a token that is not a pod's, or not good.
        until: when to ask again.
    """

    pod_uid: str | None
    until: float


class ProgressEndpoint:
    """Answers progress reports. Thread-safe.

    Args:
        client: reviews tokens and writes.
        stores: where pods and jobs are looked up.
        bucket: how many reviews and writes a second.
        clock: for intervals and heartbeats.
        on_answer: told the status code of every answer.
    """

    def __init__(
        self,
        client: KubeClient,
        stores: Stores,
        bucket: TokenBucket,
        clock: Clock,
        on_answer: Callable[[int], None] = lambda code: None,
    ) -> None:
        self._client = client
        self._stores = stores
        self._bucket = bucket
        self._clock = clock
        self._on_answer = on_answer
        self._lock = threading.Lock()
        self._reviews: OrderedDict[str, _Reviewed] = OrderedDict()
        self._last: OrderedDict[str, float] = OrderedDict()

    def handle(self, request: Request) -> Answer:
        """Answers one report."""
        try:
            answer = self._handle(request)
        except TooManyRequests as error:
            answer = Answer(
                429, b"come back later\n", headers={"Retry-After": f"{error.retry_after:.0f}"}
            )
        except NotFound:
            answer = Answer(404, b"no such job\n")
        except ApiError as error:
            logger.info("a report to %s was not taken in: %s", request.path, error)
            answer = Answer(503, b"the API server does not answer\n")
        self._on_answer(answer.code)
        return answer

    def _handle(self, request: Request) -> Answer:
        found = _PATH.fullmatch(request.path)
        if found is None or request.method != "POST":
            return Answer(404, b"POST /v1/progress/<namespace>/<job>\n")
        namespace, name = found.groups()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        pod = self._pod(token) if scheme.lower() == "bearer" and token else None
        if pod is None:
            return Answer(401, b"a token of a live pod is needed\n")
        job = self._stores.jobs.get(namespace, name)
        if job is None or not _belongs(pod, job):
            return Answer(403, b"the pod is not of this job's current attempt\n")
        try:
            progress = Progress.model_validate_json(request.body)
        except ValidationError as error:
            return Answer(400, f"{describe(error)}\n".encode())
        if (progress.stage, progress.attempt) != attempt_of(pod):
            return Answer(403, b"the report is of another stage or attempt\n")
        if not self._in_turn(pod["metadata"]["uid"]):
            return Answer(429, b"too often\n", headers={"Retry-After": "1"})
        self._write(namespace, name, job, progress)
        return Answer(204)

    def _pod(self, token: str) -> JsonObject | None:
        """The live pod that a token was made for."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        now = self._clock.monotonic()
        with self._lock:
            known = self._reviews.get(digest)
        if known is None or now >= known.until:
            known = _Reviewed(self._review(token), now + REVIEW_SECONDS)
            with self._lock:
                _remember(self._reviews, digest, known)
        if known.pod_uid is None:
            return None
        pods = self._stores.pods.by_index(BY_UID, known.pod_uid)
        live = [p for p in pods if (p.get("status") or {}).get("phase") in ("Pending", "Running")]
        return live[0] if live else None

    def _review(self, token: str) -> str | None:
        """UID of the pod in a good token for this audience."""
        self._bucket.acquire()
        review = self._client.post(
            _REVIEWS,
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [PROGRESS_AUDIENCE]},
            },
        )
        status = review.get("status") or {}
        if not status.get("authenticated") or PROGRESS_AUDIENCE not in (
            status.get("audiences") or ()
        ):
            return None
        uids = ((status.get("user") or {}).get("extra") or {}).get(_POD_UID) or ()
        return uids[0] if len(uids) == 1 else None

    def _in_turn(self, pod_uid: str) -> bool:
        now = self._clock.monotonic()
        with self._lock:
            last = self._last.get(pod_uid)
            if last is not None and now - last < MIN_INTERVAL_SECONDS:
                return False
            _remember(self._last, pod_uid, now)
            return True

    def _write(self, namespace: str, name: str, job: JsonObject, progress: Progress) -> None:
        self._bucket.acquire()
        metadata = {"namespace": namespace, "name": name, "uid": job["metadata"]["uid"]}
        # Where an earlier report had keys, server-side apply makes null of an empty map.
        wire = {field: value for field, value in progress.to_wire().items() if value != {}}
        wire["heartbeat"] = format_time(self._clock.now())  # a node's clock may be wrong by hours
        self._client.apply_status(
            R1REWARDJOBS,
            {
                "apiVersion": API_VERSION,
                "kind": R1REWARDJOBS.kind,
                "metadata": metadata,
                "status": {"progress": wire},
            },
            PROGRESS_FIELD_MANAGER,
            force=True,
        )


def _belongs(pod: JsonObject, job: JsonObject) -> bool:
    """Whether the pod is of the job's current stage and attempt."""
    metadata = job["metadata"]
    labels = pod["metadata"].get("labels") or {}
    status = job.get("status") or {}
    stage = status.get("stage")
    attempts = {s["name"]: s.get("attempt", 0) for s in status.get("stages") or ()}
    return (
        pod["metadata"].get("namespace") == metadata["namespace"]
        and labels.get(LABEL_JOB) == metadata["name"]
        and labels.get(LABEL_JOB_UID) == metadata["uid"]
        and stage is not None
        and attempt_of(pod) == (stage, attempts.get(stage))
    )


def _remember(memory: OrderedDict, key: str, value: object) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def same_but_progress(old: JsonObject, new: JsonObject) -> bool:
    """Whether two states of a job differ in nothing but `status.progress`, and what the stage
    waits for is still the same."""
    return _without(old) == _without(new)


def _without(job: JsonObject) -> JsonObject:
    metadata = {k: v for k, v in job["metadata"].items() if k != "resourceVersion"}
    whole = job.get("status") or {}
    status = {k: v for k, v in whole.items() if k != "progress"}
    status["waitingFor"] = (whole.get("progress") or {}).get("waitingFor")
    return {**job, "metadata": metadata, "status": status}
