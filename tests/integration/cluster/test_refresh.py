# SPDX-License-Identifier: Apache-2.0
"""What restarts when an image has other content than before, on a real API server."""

import json
from typing import Any

from tests.cluster.apiserver import Kubernetes
from tests.cluster.refresh import restart_changed


def deployment(name: str, image: str, owner: str = "") -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": "u-1"}
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "ownerReferences": [reference] if owner else []},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }


def test_only_what_runs_a_changed_image_and_belongs_to_no_attempt_restarts(apiserver: Kubernetes):
    apiserver.kubectl("create", "namespace", "refresh")
    made = [
        deployment("changed", "r1reward/operator:dev"),
        deployment("same", "r1reward/trainer:dev"),
        deployment("attempt", "r1reward/operator:dev", owner="job"),
    ]
    for each in made:
        apiserver.kubectl("-n", "refresh", "create", "-f", "-", stdin=json.dumps(each))
    restart_changed(apiserver, ["r1reward/operator:dev"])
    found = json.loads(apiserver.kubectl("-n", "refresh", "get", "deployments", "-o", "json"))
    restarted = [
        d["metadata"]["name"]
        for d in found["items"]
        if "kubectl.kubernetes.io/restartedAt"
        in d["spec"]["template"]["metadata"].get("annotations", {})
    ]
    assert restarted == ["changed"]
