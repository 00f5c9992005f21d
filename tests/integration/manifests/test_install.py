# SPDX-License-Identifier: Apache-2.0
"""The kustomizations that docs/install.md shows."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import kubectl

ROOT = Path(__file__).parents[3]


def printed(section: str) -> Any:
    """The YAML block of a section."""
    page = (ROOT / "docs/install.md").read_text()
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(block)


def built(folder: Path, kustomization: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects, from a folder beside manifests/ as the page says."""
    (folder / "manifests").symlink_to(ROOT / "manifests")
    site = folder / "site"
    site.mkdir()
    (site / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command = [str(kubectl()), "kustomize", str(site)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout)}


def test_the_operator_is_pulled_from_a_private_registry(tmp_path: Path):
    found = built(tmp_path, printed("Private registries"))
    account = found["ServiceAccount", "r1reward-operator"]
    assert account["imagePullSecrets"] == [{"name": "registry"}]
    pod = found["Deployment", "r1reward-operator"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "r1reward-operator"
    assert "imagePullSecrets" not in pod, "they would stand instead of the ServiceAccount's"
    assert [c["image"] for c in pod["containers"]] == ["REGISTRY/r1reward-operator:v0.1.0"]


def test_the_right_to_make_namespaced_runtimes_can_be_left_out(tmp_path: Path):
    site = printed("Private registries")
    site["patches"] += printed("Namespaced runtimes")
    found = built(tmp_path, site)
    assert ("ClusterRole", "r1reward-admin") not in found
    rules = [r for o in found.values() if o["kind"] == "ClusterRole" for r in o["rules"]]
    writes = [r for r in rules if {"r1rewardruntimes", "*"} & set(r["resources"])]
    assert {verb for r in writes for verb in r["verbs"]} == {"get", "list", "watch"}
