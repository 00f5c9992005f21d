# SPDX-License-Identifier: Apache-2.0
"""What a stock vLLM server lacks to be a rollout server.

A weight-transfer engine that verifies new weights before it touches the model
(`engine`), a start command (`serve`), and an ASGI middleware that demands the job's
token and proves the server's identity (`middleware`).
"""
