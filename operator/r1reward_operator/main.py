# SPDX-License-Identifier: Apache-2.0
"""`r1reward-operator`: runs until SIGTERM. `r1reward-operator serve-manifest JOB` only prints."""

import logging
import signal
import sys
import threading

from r1reward_operator import serve_manifest
from r1reward_operator.app import Operator
from r1reward_operator.kube.client import KubeClient
from r1reward_operator.settings import parse


def main() -> None:
    """Starts the operator and waits for a signal to end it."""
    if sys.argv[1:2] == ["serve-manifest"]:
        serve_manifest.main(sys.argv[2:])
        return
    settings = parse(sys.argv[1:])
    logging.basicConfig(
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    operator = Operator(settings, KubeClient.from_environment(settings.kubeconfig))
    operator.start()
    stop.wait()
    operator.stop()


if __name__ == "__main__":
    main()
