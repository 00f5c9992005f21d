# SPDX-License-Identifier: Apache-2.0
"""What lies in the object store: committed steps, and uploads that nobody finished."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from minio import Minio

from r1reward_api.constants import Stage
from r1reward_api.wire.runconfig import stage_prefix
from r1reward_trainer.storage.s3 import NotFound, Store

TRAINED: Final = (Stage.SFT, Stage.RL)
"""The stages that have checkpoints."""


def committed(store: Store, uid: str, status: Mapping[str, Any]) -> dict[str, int]:
    """The last committed step of each of a job's runs, by its checkpoint folder.

    Args:
        store: at the namespace's root.
        uid: of the job.
        status: of the job: a stage that has run has its key there.

    Raises:
        StageError: when the store does not answer.
    """
    found: dict[str, int] = {}
    for stage in status.get("stages", []):
        if stage["name"] not in TRAINED or not stage.get("key"):
            continue
        folder = f"{stage_prefix(Stage(stage['name']), stage['key'])}/runs/{uid}/checkpoints"
        try:
            pointer = json.loads(store.get(f"{folder}/latest.json"))
        except NotFound:
            continue
        found[folder] = max((c["step"] for c in pointer.get("committed", [])), default=0)
    return found


def unfinished_uploads(storage: Mapping[str, str], bucket: str) -> list[str]:
    """The keys of multipart uploads that were neither completed nor aborted.

    Args:
        storage: AWS_* variables.
        bucket: where to look.
    """
    endpoint = urlsplit(storage["AWS_ENDPOINT_URL"])
    client = Minio(
        endpoint.netloc,
        access_key=storage["AWS_ACCESS_KEY_ID"],
        secret_key=storage["AWS_SECRET_ACCESS_KEY"],
        region=storage["AWS_REGION"],
        secure=endpoint.scheme == "https",
    )
    # minio has no public call for it.
    return sorted(u.object_name or "" for u in client._list_multipart_uploads(bucket).uploads)
