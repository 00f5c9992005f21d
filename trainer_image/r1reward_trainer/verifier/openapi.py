# SPDX-License-Identifier: Apache-2.0
"""Writes the verifier's OpenAPI document: `python -m r1reward_trainer.verifier.openapi FILE`."""

import json
import sys
from pathlib import Path

from r1reward_api.resource.training import Algorithm
from r1reward_trainer.verifier.app import create_app
from r1reward_trainer.verifier.scoring import Scoring
from r1reward_trainer.verifier.service import RewardService


def document() -> str:
    """The document of all routes, as it is published."""
    service = RewardService(Scoring(Algorithm()), None)
    app = create_app(service, "token", tail=Path("tail"))
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
