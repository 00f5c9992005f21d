# SPDX-License-Identifier: Apache-2.0
"""Where a fleet's servers are and how long things may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Times are seconds.

    ``probe_timeout`` bounds what a live server answers at once: one that is silent for twice as
    long is given up with all that it had. ``no_server_timeout`` bounds how long work waits while
    no server at all may have it, and ``no_store_timeout`` how long weights are offered again that
    no server could fetch, as the store was away. Where ``first_in_flight_per_server`` is given, the
    prompts that a server may have at once are so many in the beginning and then follow its waiting
    queue, up to ``max_in_flight_per_server``; else they are always the latter.
    """

    service: str  # headless Service name, or an address
    job_uid: str
    port: int = 8000
    resolve_interval: float = 5.0
    probe_timeout: float = 15.0
    max_in_flight_per_server: int = 64
    first_in_flight_per_server: int | None = None
    request_timeout: float = 600.0
    request_attempts: int = 4
    prepare_timeout: float = 1800.0
    control_timeout: float = 300.0
    no_server_timeout: float = 900.0
    no_store_timeout: float = 120.0
