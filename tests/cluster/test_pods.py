# SPDX-License-Identifier: Apache-2.0
"""What the demo and the end-to-end tests rely on."""

import json
from collections.abc import Callable

import pytest

from tests.cluster.apiserver import Kubernetes
from tests.cluster.errors import ClusterError
from tests.cluster.layout import BRIDGE_ADDRESS, S3_PORT
from tests.cluster.pods import pod, pod_spec

Create = Callable[..., None]

LOOK_AROUND = """
import importlib.metadata, json, os, subprocess
import r1reward_api, r1reward_trainer, torch
try:
    open("/opt/written", "w")
    written = True
except OSError:
    written = False
print(json.dumps({
    "user": os.getuid(),
    "wrote to the root": written,
    "trainer": importlib.metadata.version("r1reward-trainer"),
    "r1": subprocess.run(["r1", "--help"], capture_output=True).returncode,
}))
"""

SERVE = (
    "from http.server import *; HTTPServer(('', 8000), SimpleHTTPRequestHandler).serve_forever()"
)

FETCH = """
import sys, time, urllib.error, urllib.request
deadline = time.monotonic() + 60
def status(url):
    # DNS and kube-proxy learn of a Service some time after its pod is ready.
    while True:
        try:
            return urllib.request.urlopen(url, timeout=20).status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError as error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
print([status(url) for url in sys.argv[1:]])
"""

ALL_REDUCE = """
import torch, torch.distributed as d
d.init_process_group("gloo")
t = torch.tensor([d.get_rank() + 1.0])
d.all_reduce(t)
print("rank", d.get_rank(), "sum", t.item())
d.destroy_process_group()  # else its threads may abort the interpreter's end
"""


def finish(kubernetes: Kubernetes, namespace: str, name: str) -> str:
    """Waits until the pod has ended, asserts that it succeeded, and returns its log."""
    of_pod = (name, "-n", namespace)
    kubernetes.kubectl("wait", "--for=create", f"pod/{name}", "-n", namespace, "--timeout=30s")
    ended = "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}"
    try:
        kubernetes.kubectl("wait", "pod", *of_pod, ended, "--timeout=120s")
    except ClusterError:
        print(kubernetes.kubectl("describe", "pod", *of_pod))
        raise
    log = kubernetes.kubectl("logs", *of_pod)
    code = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"
    assert kubernetes.kubectl("get", "pod", *of_pod, "-o", code) == "0", log
    return log


@pytest.mark.timeout(240)
def test_our_image_runs_as_a_restricted_pod(
    kubernetes: Kubernetes, namespace: str, create: Create
) -> None:
    create(pod("look", pod_spec(["python", "-c", LOOK_AROUND])))
    assert json.loads(finish(kubernetes, namespace, "look")) == {
        "user": 65532,
        "wrote to the root": False,
        "trainer": "0.1.0",
        "r1": 0,
    }


@pytest.mark.timeout(240)
def test_a_pod_reaches_a_service_by_name_and_the_object_store(
    kubernetes: Kubernetes, namespace: str, create: Create
) -> None:
    probe = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
    server = pod_spec(["python", "-c", SERVE], workingDir="/tmp", readinessProbe=probe)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    create(service, pod("server", server))
    ready = "--for=condition=Ready"
    kubernetes.kubectl("wait", "pod", "server", "-n", namespace, ready, "--timeout=60s")
    urls = [
        "http://web/",
        f"http://web.{namespace}.svc.cluster.local/",
        f"http://{BRIDGE_ADDRESS}:{S3_PORT}/",  # refuses strangers
    ]
    create(pod("client", pod_spec(["python", "-c", FETCH, *urls])))
    assert finish(kubernetes, namespace, "client").strip() == "[200, 200, 403]"


@pytest.mark.timeout(300)
def test_two_restricted_workers_of_a_pytorchjob_reduce_over_gloo(
    kubernetes: Kubernetes, namespace: str, create: Create
) -> None:
    """Worker-only with static rendezvous: no foreign init container, worker 0 is rank 0."""
    label = "metadata.labels['training.kubeflow.org/replica-index']"
    environment = [
        {"name": "PET_RDZV_BACKEND", "value": "static"},
        {"name": "PET_MASTER_ADDR", "value": "sum-worker-0"},
        {"name": "PET_MASTER_PORT", "value": "23456"},
        {"name": "PET_MAX_RESTARTS", "value": "0"},
        {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": label}}},
        {"name": "OMP_NUM_THREADS", "value": "1"},
    ]
    command = ["python", "-m", "torch.distributed.run", "--no-python", "python", "-c", ALL_REDUCE]
    worker = {
        "replicas": 2,
        "restartPolicy": "Never",
        "template": {"spec": pod_spec(command, "pytorch", env=environment)},
    }
    create(
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": "sum"},
            "spec": {
                "nprocPerNode": "1",
                "runPolicy": {"cleanPodPolicy": "None"},
                "pytorchReplicaSpecs": {"Worker": worker},
            },
        }
    )
    logs = [finish(kubernetes, namespace, f"sum-worker-{n}") for n in (0, 1)]
    succeeded = "--for=condition=Succeeded"
    kubernetes.kubectl("wait", "pytorchjob/sum", "-n", namespace, succeeded, "--timeout=60s")
    assert [log.splitlines()[-1] for log in logs] == ["rank 0 sum 3.0", "rank 1 sum 3.0"]


def test_a_pod_that_asks_for_root_is_refused(create: Create) -> None:
    spec = pod_spec(["true"])
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        create(pod("root", spec))
