# SPDX-License-Identifier: Apache-2.0
"""Scores for others than the job itself: files (`r1 score`) and requests (`r1 scoring-front`)."""
