# SPDX-License-Identifier: Apache-2.0
"""The shapes in which preference data is published, one file each.

An importer is a pure function from a raw record to records of the one schema
(`r1reward_api/wire/rows.py`), which `data/schema.py` then checks.
"""
