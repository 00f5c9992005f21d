# SPDX-License-Identifier: Apache-2.0
"""Daemons are known again, told apart from others, and found when nobody wrote them down."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import cluster, layout, ownership
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Daemon, Supervisor, end, wait_until

LEADERLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""The first thread ends and another goes on, as in a process that is being killed."""
SLEEP = Daemon("sleeper", ("sleep", "300"))


def test_a_running_daemon_is_left_alone_by_a_second_supervisor(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        assert supervisor.start(SLEEP)
        again = Supervisor(tmp_path)
        assert not again.start(SLEEP)
        assert again.running("sleeper") == supervisor.running("sleeper")


def test_a_daemon_with_other_arguments_is_started_anew(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(SLEEP)
        before = supervisor.running("sleeper")
        assert supervisor.start(Daemon("sleeper", ("sleep", "301")))
        assert supervisor.running("sleeper") not in {before, None}


def test_a_daemon_that_died_is_named_with_its_last_words(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(Daemon("server", ("sh", "-c", "echo no certificate; exit 1")))
        with pytest.raises(ClusterError, match=r"(?s)server died.*no certificate"):
            wait_until("the server answers", lambda: False, 10, supervisor.check)


def test_a_daemon_whose_threads_still_end_is_not_gone(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(Daemon("server", (sys.executable, "-c", LEADERLESS)))
        pid = supervisor.running("server")
        state = Path(f"/proc/{pid}/stat")
        wait_until("a zombie", lambda: ") Z " in state.read_text(), 30, supervisor.check)
        assert supervisor.running("server") == pid
        supervisor.stop("server", grace=0)
        assert not state.exists()


def test_the_clusters_status_shows_the_last_words_of_what_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layout, "CLUSTER", tmp_path)
    monkeypatch.setattr(layout, "OWNER", tmp_path / "owner")
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(Daemon("etcd", ("sh", "-c", "echo no space left; exit 1")))
        wait_until("it is dead", lambda: supervisor.dead() == ["etcd"], 10, lambda: None)
        assert not cluster.status()
    said = capsys.readouterr().out
    assert "etcd died" in said
    assert "no space left" in said
    assert "kubelet died" not in said, "it was never started"


def test_a_second_checkouts_cluster_is_refused_while_the_first_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first/.cluster", tmp_path / "second/.cluster"
    monkeypatch.setattr(layout, "OWNER", tmp_path / "owner")
    monkeypatch.setattr(layout, "CLUSTER", first)
    ownership.claim()
    ownership.refuse_second()
    with Supervisor(first) as supervisor:
        supervisor.start(SLEEP)
        monkeypatch.setattr(layout, "CLUSTER", second)
        with pytest.raises(ClusterError, match=r"checkout .*/first runs .* `make cluster-down`"):
            ownership.refuse_second()
    ownership.refuse_second()  # it runs no more


def test_a_pid_that_belongs_to_another_process_by_now_is_not_taken_for_the_daemon(
    tmp_path: Path,
) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(SLEEP)
        record = tmp_path / "pids" / "sleeper.json"
        pid = supervisor.running("sleeper")
        kept = record.read_text()
        record.write_text(kept.replace(f'"pid": {pid}', f'"pid": {os.getpid()}'))
        assert supervisor.running("sleeper") is None
        record.write_text(kept)


def test_a_daemon_that_was_never_written_down_is_found_and_ended(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.start(SLEEP)
    pid = supervisor.running("sleeper")
    (tmp_path / "pids" / "sleeper.json").unlink()
    # A program that has only just been executed may not show its environment yet.
    wait_until("it is found", lambda: supervisor.strays() == [pid], 10, supervisor.check)
    end(supervisor.strays(), grace=5)
    assert supervisor.strays() == []


def test_tied_daemons_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, signal; from pathlib import Path\n"
        "from tests.cluster.processes import Daemon, Supervisor\n"
        "Supervisor(Path(sys.argv[1]), tied=True).start(Daemon('sleeper', ('sleep', '300')))\n"
        "print(flush=True); signal.pause()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    supervisor = Supervisor(tmp_path)
    pid = supervisor.running("sleeper")
    assert pid is not None
    # What ties it does so before it becomes the daemon.
    name = Path(f"/proc/{pid}/comm")
    wait_until("it runs", lambda: name.read_text() == "sleep\n", 10, lambda: None)
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=10)
    wait_until("it ended", lambda: supervisor.running("sleeper") is None, 10, lambda: None)
