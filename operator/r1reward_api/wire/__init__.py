# SPDX-License-Identifier: Apache-2.0
"""The five wire contracts: preference row, manifest, progress, termination message, run
configuration."""
