# SPDX-License-Identifier: Apache-2.0
"""Predictions as they come, chunk by chunk in storage: a kill repeats at most the two that are
under way."""

import io
import logging
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from r1reward_trainer.evaluation.predictions import ORDERS, SCHEMA
from r1reward_trainer.storage.s3 import NotFound, Store

logger = logging.getLogger(__name__)


class Journal:
    """Chunks of predictions below a prefix that only this job writes.

    Args:
        store: object storage.
        prefix: below `RunConfig.run_prefix`, so that the stage's key is in it.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def read(self, model: str, given: str, chunk: int, rows: Sequence[int]) -> pa.Table | None:
        """A chunk written before, None when there is none with just these rows.

        Args:
            model: whose.
            given: the set.
            chunk: its number.
            rows: positions of its rows.
        """
        try:
            table = pq.read_table(io.BytesIO(self._store.get(self._key(model, given, chunk))))
        except NotFound:
            return None
        except (pa.ArrowInvalid, OSError) as error:
            logger.warning("journal of %s, %s %d, is damaged: %s", model, given, chunk, error)
            return None
        if table.schema != SCHEMA:
            return None
        asked = set(zip(table["row"].to_pylist(), table["order"].to_pylist(), strict=True))
        whole = asked == {(row, order) for row in rows for order in ORDERS}
        return table if whole else None

    def write(self, model: str, given: str, chunk: int, table: pa.Table) -> None:
        """Keeps a chunk, whole or not at all: all rounds of its votes are in it."""
        out = io.BytesIO()
        pq.write_table(table, out)
        self._store.put(self._key(model, given, chunk), out.getvalue())

    def clear(self) -> None:
        """Removes all chunks."""
        self._store.delete_prefix(self._prefix)

    def _key(self, model: str, given: str, chunk: int) -> str:
        return f"{self._prefix}/{model}/{given}/{chunk:05d}.parquet"
