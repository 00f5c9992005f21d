# SPDX-License-Identifier: Apache-2.0
"""What two processes do together, without a model."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing

from r1reward_api.reasons import Reason
from r1reward_trainer import distributed, pulse
from r1reward_trainer.distributed import Peers, peers
from r1reward_trainer.outcome import ConfigurationError, InfrastructureError, StageError
from tests.cluster.ports import free
from tests.cluster.processes import wait_until

Scene = Callable[[Peers, Path], None]

STOP = threading.Event()
"""Of each process its own, as SIGTERM sets it."""


def play(scene: Scene, folder: Path) -> None:
    """Runs a scene in two processes."""
    (port,) = free(1)
    multiprocessing.spawn(_enter, (port, scene, folder), nprocs=2)


def play_watched(scene: Scene, folder: Path, ends: Sequence[int] = (0, 1)) -> dict[int, str]:
    """Runs a scene in two processes that watch each other; the errors of those that must end."""
    (port,) = free(1)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_enter, args=(rank, port, scene, folder, True)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        for rank in ends:
            processes[rank].join(60)
            assert processes[rank].exitcode is not None, f"rank {rank} waits for who is gone"
    finally:
        for process in processes:
            process.kill()
            process.join(10)
    return {
        rank: (folder / f"error-{rank}").read_text()
        for rank in range(2)
        if (folder / f"error-{rank}").exists()
    }


def _enter(rank: int, port: int, scene: Scene, folder: Path, watched: bool = False) -> None:
    def tell(error: StageError) -> None:
        kind = type(error).__name__
        (folder / f"error-{rank}").write_text(f"{kind} {error.reason} {error.message}")

    def abandon(error: StageError) -> None:
        tell(error)
        os._exit(error.exit_code)

    if watched:
        pulse.BEAT_SECONDS, pulse.PATIENCE = 0.1, 20
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        with peers(rank, 2, rank, abandon if watched else None, STOP) as group:
            scene(group, folder)
    except StageError as error:
        tell(error)


def _share(group: Peers, folder: Path) -> None:
    assert group.leader(lambda: f"from {group.rank}") == "from 0"
    assert group.gather(lambda: group.rank) == [0, 1]
    assert group.together(lambda: group.rank) == group.rank
    assert group.sum(torch.tensor([1.0, group.rank])).tolist() == [2.0, 1.0]
    assert group.any(group.rank == 1)
    assert not group.any(False)
    group.once_per_pod((folder / f"pod-{group.rank}").touch)


def _fail(group: Peers, folder: Path) -> None:
    def work() -> None:
        if group.rank == 1:
            raise ConfigurationError(Reason.INVALID_DATA, "row 7 is bad")

    group.together(work)


def _come_late(group: Peers, folder: Path) -> None:
    distributed.COLLECTIVE_TIMEOUT = timedelta(seconds=2)
    if group.rank == 0:
        group.together(lambda: None)
        return
    wait_until("rank 0 gave up", (folder / "error-0").exists, 60.0, lambda: None)


def _until_heard(group: Peers, place: str) -> None:
    """The watch of this process knows where a process is. Rank 0 learns it from that process,
    which learns from rank 0's answer that it did."""
    watch = group._pulse
    assert watch is not None
    wait_until(f"heard of {place}", lambda: place in watch.places(), 60.0, lambda: None)


def _freeze(group: Peers, folder: Path) -> None:
    group.at("step 7, sampling")
    group.barrier()
    if group.rank == 1:
        group.at("step 7, training")
        _until_heard(group, "rank 1 at step 7, training")
        os.kill(os.getpid(), signal.SIGSTOP)
    group.sum(torch.zeros(1))


def _stay_away(group: Peers, folder: Path) -> None:
    """Rank 1's main thread is stuck; when rank 0 has given up, rank 1 must end, too."""
    distributed.COLLECTIVE_TIMEOUT = timedelta(seconds=2)
    group.at("step 3, saving" if group.rank == 0 else "step 3, training")
    if group.rank == 0:
        _until_heard(group, "rank 1 at step 3, training")
        group.barrier()
    threading.Event().wait()


def _wait_for_services(group: Peers, folder: Path) -> None:
    """Rank 1 gets SIGTERM while all wait for what rank 0 waits for."""
    if group.rank == 1:
        STOP.set()
    group.leader(lambda: (folder / "told").write_text(str(STOP.wait(60))))


def _take_turns_to_be_slow(group: Peers, folder: Path) -> None:
    """Each longer than the watch's patience: one at work, one when the other has left."""
    if group.rank == 1:
        time.sleep(1.5 * pulse.PATIENCE * pulse.BEAT_SECONDS)
    group.barrier()
    if group.rank == 0:
        time.sleep(1.5 * pulse.PATIENCE * pulse.BEAT_SECONDS)


def test_results_and_sums_are_shared(tmp_path: Path):
    play(_share, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pod-0"]


def test_an_error_of_one_process_is_raised_in_both_with_its_class_and_reason(tmp_path: Path):
    play(_fail, tmp_path)
    assert (tmp_path / "error-1").read_text() == "ConfigurationError InvalidData row 7 is bad"
    other = (tmp_path / "error-0").read_text()
    assert other == "ConfigurationError InvalidData on rank 1: row 7 is bad"


def test_the_message_names_the_rank_that_did_not_come(tmp_path: Path):
    play(_come_late, tmp_path)
    message = (tmp_path / "error-0").read_text()
    assert message.startswith(f"{InfrastructureError.__name__} {Reason.PEER_LOST}")
    assert "Ranks 1 failed to pass monitoredBarrier" in message


def test_a_frozen_process_is_named_with_its_place_though_its_connections_stand(tmp_path: Path):
    errors = play_watched(_freeze, tmp_path, ends=[0])
    assert errors[0].startswith(
        "InfrastructureError PeerLost rank 0 of 2 lost its peers at step 7, sampling: "
        "no sign of life for 2 s from rank 1, last at step 7, training"
    )


def test_who_waits_for_a_stuck_process_gives_up_and_then_the_stuck_one_ends(tmp_path: Path):
    errors = play_watched(_stay_away, tmp_path)
    assert errors[0].startswith("InfrastructureError PeerLost rank 0 of 2 lost its peers at step 3")
    assert "Ranks 1 failed to pass monitoredBarrier" in errors[0]
    assert "rank 1 at step 3, training" in errors[0]
    assert "rank 1 of 2 lost its peers at step 3, training" in errors[1]
    assert "no sign of life for 2 s from rank 0, last at step 3, saving" in errors[1]


def test_rank_0_learns_that_another_process_was_told_to_stop_while_it_waits(tmp_path: Path):
    assert play_watched(_wait_for_services, tmp_path) == {}
    assert (tmp_path / "told").read_text() == "True"


def test_neither_a_slow_process_nor_one_that_is_done_is_missed(tmp_path: Path):
    assert play_watched(_take_turns_to_be_slow, tmp_path) == {}
