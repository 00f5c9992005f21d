# SPDX-License-Identifier: Apache-2.0
"""The processes of one stage: what they do together, and what happens when one is lost.

Tensors of the model travel over NCCL (or gloo without GPUs). Everything else (who
failed, who was told to stop, what rank 0 found in storage) goes over a gloo group of
its own, whose barrier names the ranks that did not come. Beside both, each process
gives signs of life (`pulse.py`), and all end when one falls silent.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from r1reward_api.reasons import Reason
from r1reward_api.wire.termination import FailureClass
from r1reward_trainer.outcome import (
    ConfigurationError,
    InfrastructureError,
    ProgramError,
    StageError,
    as_stage_error,
)
from r1reward_trainer.pulse import Pulse

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""One collective of the model, or the wait for the slowest process between two steps."""
LONG_TIMEOUT = timedelta(hours=3)
"""The wait for sampling, downloads and uploads, which have deadlines of their own."""

_LOST = re.compile(r"gloo|connection (closed|reset|refused)|monitoredbarrier|nccl|timed out", re.I)


class Peers:
    """This process among its peers.

    Attributes:
        rank, world_size: of torch.distributed.
        local_rank: within the pod.
        device: where this process computes.
        mesh: one dimension over all processes.
    """

    def __init__(self, rank: int, world_size: int, local_rank: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
        if gpu:
            torch.cuda.set_device(self.device)
        rendezvous: dict[str, Any] = {"init_method": "env://"}
        if world_size == 1:
            rendezvous = {"store": dist.HashStore()}  # no port, no environment
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            rank=rank,
            world_size=world_size,
            timeout=COLLECTIVE_TIMEOUT,
            **rendezvous,
        )
        control = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
        assert isinstance(control, dist.ProcessGroup)  # every process is in it
        self._control = control
        self._pulse: Pulse | None = None
        self.mesh: DeviceMesh = init_device_mesh(self.device.type, (world_size,))

    def watch(self, abandon: Callable[[StageError], None], stop: threading.Event) -> None:
        """Begins to give signs of life and to wait for those of the others.

        Args:
            abandon: ends this process, whatever its main thread is doing, with an error.
            stop: see `Pulse`.
        """
        if self.world_size > 1:
            self._pulse = Pulse(
                self.rank, self.leader, lambda reason: abandon(self.lost(reason)), stop
            )

    def at(self, place: str) -> None:
        """Says where this process is, for the message of those that miss it.

        Args:
            place: such as "step 7, sampling".
        """
        if self._pulse is not None:
            self._pulse.place = place

    def lost(self, reason: str) -> InfrastructureError:
        """PeerLost, with where this process was, and where the others were."""
        place, known = "starting", ""
        if self._pulse is not None:
            place, known = self._pulse.place, self._pulse.places()
        return InfrastructureError(
            Reason.PEER_LOST,
            f"rank {self.rank} of {self.world_size} lost its peers at {place}: {reason}"
            + (f" (last known: {known})" if known else ""),
        )

    def together(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Every process works; all succeed or all raise.

        Returns:
            The process's own result.

        Raises:
            StageError: the process's own error, or else that of the lowest rank that failed.
        """
        return self._agree(lambda: work(*args, **kwargs), COLLECTIVE_TIMEOUT, lambda _: None)[0]

    def gather(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """As `together`, for work that may take long; gives the results of all, by rank."""
        return self._agree(lambda: work(*args, **kwargs), LONG_TIMEOUT, lambda value: value)[1]

    def leader(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Rank 0 works; every process gets its result or its error."""
        return self.gather(lambda: work(*args, **kwargs) if self.rank == 0 else None)[0]  # pyright: ignore[reportReturnType]

    def once_per_pod(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """The first process of each pod works, such as on a folder that they share."""

        def first() -> None:
            if self.local_rank == 0:
                work(*args, **kwargs)

        self.gather(first)

    def _agree(
        self, work: Callable[[], T], timeout: timedelta, shared: Callable[[T], Any]
    ) -> tuple[T, list[Any]]:
        """The own result, and what each process shares of its own."""
        try:
            result = work()
        except Exception as error:
            self._gather((_describe(error), None), timeout)
            raise
        answers = self._gather((None, shared(result)), timeout)
        for rank, (failure, _) in enumerate(answers):
            if failure is not None:
                raise _rebuild(failure, rank)
        return result, [value for _, value in answers]

    def any(self, flag: bool) -> bool:
        """True on every process when it is on one."""
        return bool(self.sum(torch.tensor([float(flag)]))[0])

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the processes, float64 on the CPU."""
        total = values.detach().double().cpu()
        if self.world_size > 1:
            dist.all_reduce(total, group=self._control)
        return total

    def barrier(self) -> None:
        """Waits until every process is here."""
        self._gather(None, COLLECTIVE_TIMEOUT)

    def close(self, done: bool) -> None:
        """Ends the process group; the watch last, as leaving the group may itself wait.

        Args:
            done: the stage has succeeded.
        """
        dist.destroy_process_group()
        if self._pulse is not None:
            self._pulse.close(done)

    def _gather(self, value: Any, timeout: timedelta) -> list[Any]:
        if self.world_size == 1:
            return [value]
        dist.monitored_barrier(self._control, timeout, wait_all_ranks=True)
        answers: list[Any] = [None] * self.world_size
        dist.all_gather_object(answers, value, group=self._control)
        return answers


@contextmanager
def peers(
    rank: int,
    world_size: int,
    local_rank: int,
    abandon: Callable[[StageError], None] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Peers]:
    """The process group of a stage.

    Args:
        rank, world_size, local_rank: of this process.
        abandon: see `Peers.watch`; None: nobody watches.
        stop: see `Pulse`; None: nobody is told to stop.

    Raises:
        InfrastructureError: PeerLost, when another process is gone or does not answer in time.
    """
    group: Peers | None = None
    done = False
    try:
        group = Peers(rank, world_size, local_rank)
        if abandon is not None:
            group.watch(abandon, stop or threading.Event())
        yield group
        done = True
    except RuntimeError as error:
        if world_size > 1 and is_peer_lost(error):
            if group is not None:
                raise group.lost(_brief(error)) from error
            raise InfrastructureError(
                Reason.PEER_LOST,
                f"rank {rank} of {world_size} did not meet its peers: {_brief(error)}",
            ) from error
        raise
    finally:
        if group is not None:
            group.close(done)


def is_peer_lost(error: RuntimeError) -> bool:
    """True for what torch.distributed raises when a peer is gone or late.

    gloo raises plain RuntimeErrors, so their text decides.
    """
    return isinstance(error, dist.DistError) or _LOST.search(str(error)) is not None


def _describe(error: Exception) -> tuple[str, str, str]:
    """Failure class, reason and message: exceptions themselves do not travel."""
    failure = as_stage_error(error)
    return failure.failure_class.value, failure.reason, failure.message


def _rebuild(failure: tuple[str, str, str], rank: int) -> StageError:
    kinds = {k.failure_class: k for k in (ConfigurationError, InfrastructureError, ProgramError)}
    kind, reason, message = failure
    return kinds[FailureClass(kind)](Reason(reason), f"on rank {rank}: {message}")


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:600]
