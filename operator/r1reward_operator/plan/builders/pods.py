# SPDX-License-Identifier: Apache-2.0
"""Pod templates: what every pod of a job has in common, whatever its role.

Security context, token mounting and host access are set here and nowhere else:
no runtime and no job can loosen them (Pod Security level `restricted`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1reward_api.constants import (
    ATTEMPT_TOKEN_PATH,
    MODEL_PATH,
    PROGRESS_AUDIENCE,
    PROGRESS_TOKEN_PATH,
    RUN_CONFIG_PATH,
    S3_CA_PATH,
    SCRATCH_PATH,
    Role,
)
from r1reward_api.names import attempt_token_secret, run_config_map
from r1reward_api.resource.common import ResourceRequirements
from r1reward_api.resource.runtime import RoleTemplate
from r1reward_operator.plan.builders import environment
from r1reward_operator.plan.builders.build import Build, labels
from r1reward_operator.plan.builders.resources import container_resources

USER = 65532
_CONFIG_FOLDER = RUN_CONFIG_PATH.rsplit("/", 1)[0]
_TOKEN_SECONDS = 3600


@dataclass(frozen=True)
class Container:
    """What sets a container apart from the others.

    Attributes:
        name: of the container.
        image: its image.
        command: its whole command line.
        env: variables of ours, beside the template's.
        resources: instead of the template's.
        extra: further fields, such as ports and probes.
    """

    name: str
    image: str
    command: Sequence[str]
    env: environment.EnvList = field(default_factory=list)
    resources: ResourceRequirements | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """A volume and where it is mounted."""

    spec: dict[str, Any]
    mount: dict[str, Any]


def pod_template(
    build: Build,
    role: Role,
    main: Container,
    *,
    init: Sequence[Container] = (),
    volumes: Sequence[Volume] = (),
    uses_storage: bool,
    restart_policy: str | None = None,
) -> dict[str, Any]:
    """A pod template of a role.

    Args:
        build: the attempt.
        role: whose runtime template is taken.
        main: the container that does the work.
        init: containers that run before.
        volumes: beside /tmp, /dev/shm, /scratch, /models and the run configuration; mounted
            into the main container.
        uses_storage: whether a container reaches the object store.
        restart_policy: None for a Deployment's pods.
    """
    config = run_config_map(build.job, build.stage, build.attempt)
    shared = shared_volumes(build, role, config, uses_storage)
    spec = pod_spec(
        build,
        role,
        [container(build, role, main, [*shared, *volumes])],
        [container(build, role, one, shared) for one in init],
        [*shared, *volumes],
        uses_storage,
    )
    if restart_policy is not None:
        spec["restartPolicy"] = restart_policy
    return {"metadata": {"labels": pod_labels(build, role, labels(build, role))}, "spec": spec}


def pod_labels(build: Build, role: Role, own: Mapping[str, str]) -> dict[str, str]:
    """Those of the role's template, and our own, which win."""
    return {**build.template(role).labels, **own}


def shared_volumes(build: Build, role: Role, config: str, uses_storage: bool) -> list[Volume]:
    """What all containers of a pod mount.

    Args:
        build: what is built.
        role: whose runtime template is taken.
        config: the ConfigMap with the run configuration.
        uses_storage: whether a container reaches the object store.
    """
    template = build.template(role)
    configuration = _configuration(build, config, uses_storage)
    return [*_writable(template), configuration, *_caches(template)]


def pod_spec(
    build: Build,
    role: Role,
    containers: list[dict[str, Any]],
    init: list[dict[str, Any]],
    volumes: Sequence[Volume],
    uses_storage: bool,
) -> dict[str, Any]:
    """The pod around containers of `container`.

    Args:
        build: what is built.
        role: whose runtime template says where the pod runs.
        containers: which run beside each other.
        init: which run before.
        volumes: all that they mount.
        uses_storage: whether a container reaches the object store.
    """
    template = build.template(role)
    spec: dict[str, Any] = {
        "containers": containers,
        "volumes": [v.spec for v in volumes],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
    }
    if init:
        spec["initContainers"] = init
    account = build.spec.storage.service_account_name
    if uses_storage and account is not None:
        spec["serviceAccountName"] = account
    if build.runtime.images.pull_secrets:
        spec["imagePullSecrets"] = [s.to_wire() for s in build.runtime.images.pull_secrets]
    return spec | _placement(template)


def attempt_token(build: Build) -> Volume:
    """The attempt's token, shared by its worker and its services."""
    secret = attempt_token_secret(build.job, build.config.job.uid, build.stage, build.attempt)
    return token_volume("attempt-token", secret, ATTEMPT_TOKEN_PATH)


def token_volume(name: str, secret: str, path: str) -> Volume:
    """The key `token` of a Secret as a file."""
    folder, file = path.rsplit("/", 1)
    return Volume(
        {
            "name": name,
            "secret": {
                "secretName": secret,
                "defaultMode": 0o440,
                "items": [{"key": "token", "path": file}],
            },
        },
        {"name": name, "mountPath": folder, "readOnly": True},
    )


def progress_token() -> Volume:
    """A token that is good for reporting progress and for nothing else."""
    folder, name = PROGRESS_TOKEN_PATH.rsplit("/", 1)
    source = {
        "serviceAccountToken": {
            "audience": PROGRESS_AUDIENCE,
            "expirationSeconds": _TOKEN_SECONDS,
            "path": name,
        }
    }
    return Volume(
        {"name": "progress-token", "projected": {"defaultMode": 0o440, "sources": [source]}},
        {"name": "progress-token", "mountPath": folder, "readOnly": True},
    )


def claim(name: str, claim_name: str, path: str, read_only: bool) -> Volume:
    """A persistent volume claim of the job's namespace."""
    source: dict[str, Any] = {"claimName": claim_name}
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        source["readOnly"] = True
        mount["readOnly"] = True
    return Volume({"name": name, "persistentVolumeClaim": source}, mount)


def _writable(template: RoleTemplate) -> list[Volume]:
    """The root file system is read-only: these are the places to write to."""
    memory = {"medium": "Memory", "sizeLimit": str(template.shared_memory)}
    scratch = {} if template.scratch is None else {"sizeLimit": str(template.scratch)}
    return [
        Volume({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": "/tmp"}),
        Volume({"name": "shm", "emptyDir": memory}, {"name": "shm", "mountPath": "/dev/shm"}),
        Volume(
            {"name": "scratch", "emptyDir": scratch},
            {"name": "scratch", "mountPath": SCRATCH_PATH},
        ),
        Volume({"name": "models", "emptyDir": {}}, {"name": "models", "mountPath": MODEL_PATH}),
    ]


def _configuration(build: Build, name: str, uses_storage: bool) -> Volume:
    sources: list[dict[str, Any]] = [{"configMap": {"name": name}}]
    secret = build.spec.storage.secret_ref
    if uses_storage and secret is not None:
        path = S3_CA_PATH.removeprefix(_CONFIG_FOLDER + "/")
        item = {"key": "ca.crt", "path": path}
        sources.append({"secret": {"name": secret.name, "optional": True, "items": [item]}})
    return Volume(
        {"name": "configuration", "projected": {"defaultMode": 0o440, "sources": sources}},
        {"name": "configuration", "mountPath": _CONFIG_FOLDER, "readOnly": True},
    )


def _caches(template: RoleTemplate) -> list[Volume]:
    return [
        claim(f"cache-{i}", cache.claim_name, cache.mount_path, read_only=False)
        for i, cache in enumerate(template.caches)
    ]


def container(
    build: Build, role: Role, given: Container, volumes: Sequence[Volume]
) -> dict[str, Any]:
    """A container with the variables and resources of its role's template.

    Args:
        build: what is built.
        role: whose runtime template is taken.
        given: what sets it apart.
        volumes: that it mounts.
    """
    template = build.template(role)
    return {
        "name": given.name,
        "image": given.image,
        "imagePullPolicy": build.runtime.images.pull_policy,
        "command": list(given.command),
        "env": environment.merged(template.env, [_HOME, *given.env]),
        "volumeMounts": [v.mount for v in volumes],
        "resources": container_resources(role, given.resources or template.resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **given.extra,
    }


_HOME = environment.plain("HOME", "/tmp")


def _placement(template: RoleTemplate) -> dict[str, Any]:
    given = {
        "nodeSelector": template.node_selector,
        "tolerations": [t.to_wire() for t in template.tolerations],
        "affinity": template.affinity,
        "topologySpreadConstraints": template.topology_spread_constraints,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "schedulerName": template.scheduler_name,
    }
    return {k: v for k, v in given.items() if v}
