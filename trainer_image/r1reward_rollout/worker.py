# SPDX-License-Identifier: Apache-2.0
"""The worker extension: what ``/collective_rpc`` can call beside vLLM's own methods.

``collective_rpc`` runs on the engine's step loop, so that a call which waits stops every
generation; these two return at once.
"""

import json
from typing import Any

from r1reward_rollout.update_info import parse_update_info


class WeightPreparation:
    """Mixed into vLLM's worker class by ``--worker-extension-cls``."""

    weight_transfer_engine: Any

    def r1_prepare_weights(self, update_info: str) -> dict[str, Any]:
        """Start to prepare the weights that the JSON text describes; returns the status."""
        return self.weight_transfer_engine.preparer.begin(
            parse_update_info(json.loads(update_info))
        )

    def r1_prepare_status(self, key: str) -> dict[str, Any]:
        """What `Preparation.status` says, or state ``unknown``."""
        return self.weight_transfer_engine.preparer.status(key)
