# SPDX-License-Identifier: Apache-2.0
"""The contracts of R1RewardJob: the resource, what goes over wires, keys and names.

Depends on pydantic alone. The operator and the trainer image both import it;
it imports neither.
"""
