# SPDX-License-Identifier: Apache-2.0
"""`make soak`: small jobs on the local cluster while one thing after another goes wrong."""
