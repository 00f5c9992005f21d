# SPDX-License-Identifier: Apache-2.0
"""A container that has the storage credentials stores its own log."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from r1reward_api.constants import Role, Stage
from r1reward_api.wire.runconfig import RunConfig
from r1reward_rollout.tail import Tail, pod_name
from r1reward_rollout.upload import uploads
from r1reward_trainer.environment import Environment
from r1reward_trainer.logs.place import log_key, prune
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.storage.s3 import Store

_PRESIGN_SECONDS = 7 * 24 * 3600
"""The longest that S3 allows; with a workload identity the URL ends with its session."""

_TRAINED = (Stage.SFT, Stage.RL)


def uploads_of(environment: Environment, verb: str, tail: Tail) -> AbstractContextManager[Any]:
    """A context within which the log of `r1 <verb>` is stored.

    The stage's first process also deletes the logs of old attempts. Nothing is stored where
    there is no run configuration: the program says so itself.
    """
    try:
        config = environment.load_config()
    except ConfigurationError:
        return nullcontext()
    return uploads(tail, _Put(environment, config, verb))


def leave_log_url(environment: Environment, store: Store, config: RunConfig, role: Role) -> None:
    """Lets the server that starts next in this pod store its own log, and nothing else."""
    key = log_key(config, f"{role}-{pod_name()}")
    url = store.presign_put(key, _PRESIGN_SECONDS)
    (environment.models / "log-url").write_text(url, encoding="ascii")


def _source(environment: Environment, verb: str) -> str:
    if verb not in (stage.value for stage in Stage):
        return f"{verb}-{pod_name()}"
    role = Role.TRAINER if verb in _TRAINED else Role(verb)
    return f"{role}-{environment.rank}"


class _Put:
    """Opens storage when there is something to store, so that it holds nobody up."""

    def __init__(self, environment: Environment, config: RunConfig, verb: str) -> None:
        self._config = config
        self._key = log_key(config, _source(environment, verb))
        self._prunes = verb == config.stage and environment.rank == 0
        self._store: Store | None = None

    def __call__(self, data: bytes) -> None:
        if self._store is None:
            self._store = Store.from_env(self._config.root)
        self._store.put(self._key, data)
        if self._prunes:
            prune(self._store, self._config)
            self._prunes = False
