# SPDX-License-Identifier: Apache-2.0
"""The run configuration that serve-manifest gives to the front of a pod."""

from typing import Any


def served_config(
    job_uid: str, digest: str, template: str, pixels: tuple[int, int], **fields: Any
) -> dict[str, Any]:
    """Of a job whose `rl` stage made the weights.

    Args:
        job_uid: of the job.
        digest: of the weights.
        template: of the prompts.
        pixels: fewest and most of an image.
        fields: `evaluate` of the spec, and `serving`.
    """
    spec = {
        "runtimeRef": {"name": "any"},
        "model": {"uri": "s3://bucket/model"},
        "storage": {"uri": "s3://bucket/root", "secretRef": {"name": "s3"}},
        "data": {
            "preferences": [{"uri": "s3://bucket/rows/"}],
            "promptTemplate": template,
            "minPixels": pixels[0],
            "maxPixels": pixels[1],
        },
        "evaluate": fields.get("evaluate", {}),
    }
    weights = {"stage": "rl", "key": "k", "output": "weights", "digest": digest}
    return {
        "job": {"name": "vlm", "namespace": "team", "uid": job_uid},
        "stage": "evaluate",
        "attempt": 1,
        "spec": spec,
        "serving": fields.get("serving", {}),
        "inputs": {"rl": weights},
    }
