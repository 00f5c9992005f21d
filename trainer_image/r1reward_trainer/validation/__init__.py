# SPDX-License-Identifier: Apache-2.0
"""`r1 data validate`: what prepare would say about preference data, without a cluster."""
