# SPDX-License-Identifier: Apache-2.0
"""Where secrets could have leaked to, and a search over all of it."""

import base64
import io
import json
from collections.abc import Iterable, Iterator, Mapping

import pyarrow.parquet as pq

from r1reward_trainer.storage.s3 import Store
from tests.e2e.kubectl import Kubectl, KubectlError

Text = tuple[str, bytes]
"""Where it is, and what it says."""


def leaks(secrets: Mapping[str, str], texts: Iterable[Text]) -> list[str]:
    """`where: name of the secret` for every secret that stands in a text, plain or in base64.

    Args:
        secrets: values by a name that may be shown.
        texts: to be searched.
    """
    needles = {
        name: (value.encode(), base64.b64encode(value.encode()).rstrip(b"="))
        for name, value in secrets.items()
    }
    return [
        f"{where}: {name}"
        for where, data in texts
        for name, forms in needles.items()
        if any(form in data for form in forms)
    ]


def logs(kubectl: Kubectl, namespace: str, selector: str) -> Iterator[Text]:
    """The logs of the containers of pods of a namespace."""
    pods = kubectl.json("-n", namespace, "get", "pods", "-l", selector)["items"]
    for pod in pods:
        name = pod["metadata"]["name"]
        try:
            text = kubectl.run("-n", namespace, "logs", name, "--all-containers")
        except KubectlError:  # it has not begun, or is gone by now
            continue
        yield f"log of {name}", text.encode()


def descriptions(kubectl: Kubectl, namespace: str, kinds: str) -> Iterator[Text]:
    """Objects as JSON, status and annotations included."""
    for found in kubectl.json("-n", namespace, "get", kinds)["items"]:
        yield f"{found['kind']} {found['metadata']['name']}", json.dumps(found).encode()


def objects(store: Store) -> Iterator[Text]:
    """Every object below the store's root; what is compressed is read as it was."""
    for found in store.list(""):
        data = store.get(found.key)
        yield found.key, data
        if found.key.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
            yield f"{found.key}, its rows", repr(rows).encode()
