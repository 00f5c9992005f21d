# SPDX-License-Identifier: Apache-2.0
"""Reward functions for verl and TRL: this one file, of the standard library alone, may be copied.

    R1_VERIFIER_URL       http://HOST:8080
    R1_VERIFIER_TOKEN     the verifier's token
    R1_VERIFIER_SECONDS   deadline of one call, retries included; 300 when absent

Both raise when no reward could be had. None is ever made up.
"""

import http.client
import json
import os
import random
import socket
import threading
import time
import urllib.parse
from contextlib import suppress
from typing import Any

LONGEST_PAUSE_SECONDS = 10.0
MAX_ANSWER_BYTES = 16 << 20


class NoReward(RuntimeError):
    """The verifier gave no reward: it refused the request, or did not answer in time."""


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **_: Any
) -> dict[str, float]:
    """verl's `custom_reward_function`; `ground_truth` is 1, 2 or `<answer>k</answer>`.

    Returns:
        `score`, and the terms of the reward, which verl logs.

    Raises:
        NoReward: see there.
    """
    body = {"data_source": data_source, "solution_str": solution_str, "ground_truth": ground_truth}
    return _post("/compat/verl", body)


def reward_func(completions: list[Any], gold: list[Any], **_: Any) -> list[float]:
    """TRL's reward function; the data set has a column `gold` of 1, 2 or `<answer>k</answer>`.

    Raises:
        NoReward: see there.
    """
    rewards = _post("/compat/trl", {"completions": completions, "gold": gold})["rewards"]
    if len(rewards) != len(completions):
        raise NoReward(f"{len(rewards)} rewards for {len(completions)} completions")
    return rewards


def _post(path: str, body: dict[str, Any]) -> Any:
    """The answer to a request, made again until it succeeds or the deadline comes."""
    url = os.environ["R1_VERIFIER_URL"].rstrip("/") + path
    deadline = time.monotonic() + float(os.environ.get("R1_VERIFIER_SECONDS", "300"))
    pause = 0.25
    while True:
        try:
            status, raw = _exchange(url, json.dumps(body).encode(), deadline)
            if status == 200:
                return json.loads(raw)
            why = f"HTTP {status}: {raw[:300].decode(errors='replace')}"
            if status in (400, 401, 404, 405, 413, 422):
                raise NoReward(f"{url} refuses the request: {why}")
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = f"{type(error).__name__}: {error}"
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        wait = pause * (0.5 + random.random() / 2)
        if time.monotonic() + wait >= deadline:
            raise NoReward(f"{url} gave no reward in time: {why}")
        time.sleep(wait)


def _exchange(url: str, body: bytes, deadline: float) -> tuple[int, bytes]:
    """Status and body. At the deadline the connection is shut, whatever has come until then."""
    parts = urllib.parse.urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    seconds = max(0.1, deadline - time.monotonic())
    connection = kind(parts.hostname or "", parts.port, timeout=min(10.0, seconds))
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {os.environ['R1_VERIFIER_TOKEN'].strip()}",
    }
    try:
        connection.connect()
        connected = connection.sock
        connected.settimeout(seconds)
        cut = threading.Timer(seconds, _shut, (connected,))
        cut.daemon = True
        cut.start()
        try:
            connection.request("POST", parts.path, body, headers)
            response = connection.getresponse()
            raw = response.read(MAX_ANSWER_BYTES + 1)
        finally:
            cut.cancel()
    finally:
        connection.close()
    if len(raw) > MAX_ANSWER_BYTES:
        raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return response.status, raw


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
