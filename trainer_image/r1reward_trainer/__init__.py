# SPDX-License-Identifier: Apache-2.0
"""The stages of an R1RewardJob, as they run in their pods."""
