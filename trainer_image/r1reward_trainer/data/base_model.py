# SPDX-License-Identifier: Apache-2.0
"""The base model: found, staged once as safetensors, and checked before a GPU is held.

Only an allow-list of files is taken, so neither pickles nor code of the model's
repository reach any pod.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # the client that the hub raises errors of
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from r1reward_api.canonical import canonical_json
from r1reward_api.reasons import Reason
from r1reward_api.resource.job import ModelSpec
from r1reward_trainer.api_key import carriable
from r1reward_trainer.data.objects import changed_meanwhile
from r1reward_trainer.outcome import (
    ConfigurationError,
    InfrastructureError,
    disk_full,
    is_disk_full,
)
from r1reward_trainer.storage.s3 import NotFound, ObjectInfo, Store

logger = logging.getLogger(__name__)

MODEL_MOUNT = Path("/mnt/model")
"""Where the claim of a pvc:// model is mounted."""
ALLOWED_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".model")
INDEX = "model.safetensors.index.json"
_HUB_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class FoundModel:
    """A base model whose content is known, but not yet here.

    Attributes:
        digest: changes with the content.
        resolved: the URI with its revision, for the report.
        stage: puts the allowed files into a folder.
    """

    digest: str
    resolved: str
    stage: Callable[[Path], None]


def find_model(
    model: ModelSpec, open_store: Callable[[str], Store], mount: Path = MODEL_MOUNT
) -> FoundModel:
    """Looks a base model up without downloading it.

    Args:
        model: `hf://organisation/name`, `s3://bucket/prefix` or `pvc://claim/path`.
        open_store: a Store for an s3:// URI.
        mount: where the claim is mounted.

    Raises:
        ConfigurationError: InvalidModel, when it is not there or not readable.
        InfrastructureError: when the hub does not answer.
    """
    scheme, _, place = model.uri.partition("://")
    match scheme:
        case "hf":
            return _find_on_hub(place.strip("/"), model.revision)
        case "s3":
            return _find_in_s3(model.uri, open_store)
        case _:
            return _find_in_claim(model.uri, mount / place.partition("/")[2])


def is_allowed(path: str) -> bool:
    """True for the files that are taken: weights, configuration, tokenizer; at the top only."""
    return "/" not in path and path.endswith(ALLOWED_SUFFIXES) and not path.startswith(".")


def _find_on_hub(repository: str, revision: str | None) -> FoundModel:
    token = carriable(os.environ.get("HF_TOKEN"), "spec.model.tokenSecretRef") or None
    name = f"hf://{repository}"
    api = HfApi(token=token)
    try:
        commit = api.model_info(repository, revision=revision, timeout=_HUB_TIMEOUT_SECONDS).sha
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise _hub_error(error, name, revision) from error
    if commit is None:
        raise _invalid(f"spec.model.uri {name} has no commit")

    def stage(folder: Path) -> None:
        try:
            snapshot_download(
                repository,
                revision=commit,
                local_dir=folder,
                token=token,
                allow_patterns=[f"*{suffix}" for suffix in ALLOWED_SUFFIXES],
                ignore_patterns=["*/*"],
                etag_timeout=_HUB_TIMEOUT_SECONDS,
            )
        except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
            if is_disk_full(error):
                raise disk_full(f"{name} does not fit into {folder}") from error
            raise _hub_error(error, name, revision) from error
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's own notes

    return FoundModel(f"hf:{repository}@{commit}", f"{name}@{commit}", stage)


def _hub_error(
    error: Exception, name: str, revision: str | None
) -> ConfigurationError | InfrastructureError:
    if isinstance(error, GatedRepoError):
        return _invalid(
            f"spec.model.uri {name} is gated; accept its licence on the hub and give a token in "
            "spec.model.tokenSecretRef"
        )
    if isinstance(error, RevisionNotFoundError):
        return _invalid(f"spec.model.revision {revision!r} does not exist in {name}")
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError | ValueError) or status in (401, 403, 404):
        return _invalid(
            f"spec.model.uri {name} does not exist or the token of spec.model.tokenSecretRef may "
            "not read it"
        )
    return InfrastructureError(
        Reason.INFRASTRUCTURE_ERROR,
        f"spec.model.uri {name}: the hub does not answer ({type(error).__name__}); check the "
        "network, or copy the model's folder to s3:// and name that",
    )


def _find_in_s3(uri: str, open_store: Callable[[str], Store]) -> FoundModel:
    store = open_store(uri.rstrip("/"))
    files = _model_files(store)
    if not files:
        raise _invalid(
            f"spec.model.uri {uri}: no model files below this prefix; it must be the folder that "
            "holds config.json"
        )
    listing = sorted([f.key, f.bytes, f.etag] for f in files)
    digest = "sha256:" + hashlib.sha256(canonical_json(listing)).hexdigest()

    def stage(folder: Path) -> None:
        changed = changed_meanwhile(Reason.INVALID_MODEL, f"the model {uri}")
        for file in files:
            try:
                store.get_file(file.key, folder / file.key)
            except NotFound as error:
                raise changed from error
        if _model_files(store) != files:
            raise changed

    return FoundModel(digest, uri, stage)


def _model_files(store: Store) -> list[ObjectInfo]:
    return [found for found in store.list("") if is_allowed(found.key)]


def _find_in_claim(uri: str, folder: Path) -> FoundModel:
    if ".." in PurePosixPath(uri).parts:
        raise _invalid(f"spec.model.uri {uri} must not contain ..")
    try:
        paths = sorted(p for p in folder.iterdir() if p.is_file() and is_allowed(p.name))
        listing = [[p.name, p.stat().st_size, _sha256(p)] for p in paths]
    except OSError as error:
        raise _invalid(f"spec.model.uri {uri}: {error.strerror}: {error.filename}") from error
    if not paths:
        raise _invalid(f"spec.model.uri {uri}: the folder holds no model files")
    digest = "sha256:" + hashlib.sha256(canonical_json(listing)).hexdigest()

    def stage(target: Path) -> None:
        for path in paths:
            shutil.copyfile(path, target / path.name)

    return FoundModel(digest, uri, stage)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_model(folder: Path, uri: str, max_model_length: int) -> None:
    """Makes sure that trainer and vLLM will be able to load the model.

    Args:
        folder: as staged.
        uri: for messages.
        max_model_length: what the runtime wants to serve, in tokens.

    Raises:
        ConfigurationError: InvalidModel, with what is wrong.
    """
    architecture = _check_config(folder, uri, max_model_length)
    check_weights(folder, uri)
    _check_processor(folder, uri)
    logger.info("%s is a %s", uri, architecture)


def _check_config(folder: Path, uri: str, max_model_length: int) -> str:
    if not (folder / "config.json").is_file():
        raise _invalid(f"spec.model.uri {uri} has no config.json")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a hostile or broken file raises whatever its damage leads to
        raise _invalid(
            f"spec.model.uri {uri}: config.json is not understood without the repository's own "
            f"code, which is never run: {_first_line(error)}"
        ) from error
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise _invalid(
            f"spec.model.uri {uri} is a {config.model_type}, no vision-language model; "
            "give one such as Qwen2.5-VL"
        )
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and longest < max_model_length:
        raise _invalid(
            f"the runtime's serving.maxModelLength {max_model_length} is more than the "
            f"{longest} positions of spec.model.uri {uri}"
        )
    return config.model_type


def check_weights(folder: Path, uri: str) -> None:
    """Makes sure that the weights are all there and whole, as far as their headers tell.

    Raises:
        ConfigurationError: InvalidModel, with what is wrong.
    """
    weights = {path.name for path in folder.glob("*.safetensors")}
    if not weights:
        raise _invalid(
            f"spec.model.uri {uri} has no .safetensors weights; pickled weights (.bin, .pt) are "
            "never loaded: convert them first"
        )
    if (folder / INDEX).is_file():
        try:
            named = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise _invalid(f"spec.model.uri {uri}: {INDEX} is damaged: {error}") from error
        if absent := named - weights:
            raise _invalid(f"spec.model.uri {uri}: {INDEX} names absent {sorted(absent)[0]}")
    for name in sorted(weights):
        try:
            with safe_open(folder / name, framework="numpy") as file:
                empty = not file.keys()
        except (SafetensorError, OSError) as error:
            raise _invalid(f"spec.model.uri {uri}: {name} is damaged: {error}") from error
        if empty:
            raise _invalid(f"spec.model.uri {uri}: {name} holds no weights")


def _check_processor(folder: Path, uri: str) -> None:
    try:
        processor = AutoProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # as above
        raise _invalid(
            f"spec.model.uri {uri}: tokenizer and image processor cannot be loaded: "
            f"{_first_line(error)}"
        ) from error
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise _invalid(f"spec.model.uri {uri} has no {part}; add its files to the folder")
    if not (getattr(processor, "chat_template", None) or processor.tokenizer.chat_template):
        raise _invalid(f"spec.model.uri {uri} has no chat template; give an instruct model")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _invalid(message: str) -> ConfigurationError:
    return ConfigurationError(Reason.INVALID_MODEL, message)
