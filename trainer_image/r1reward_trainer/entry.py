# SPDX-License-Identifier: Apache-2.0
"""`r1`: what a container's first process does before anything that takes time.

The kernel keeps from process 1 every signal that it has no handler for, and imports take
seconds. A pod that is deleted meanwhile would go on, its GPU with it, until its grace period
is over.
"""

import os
import signal


def end_on_sigterm() -> None:
    """Until somebody has something to save, SIGTERM ends the process."""
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def main() -> None:
    """Runs `r1 <verb>`."""
    end_on_sigterm()
    from r1reward_trainer.cli import main as run

    run()
