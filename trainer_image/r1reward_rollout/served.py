# SPDX-License-Identifier: Apache-2.0
"""What the model that is served consists of, and whether other files are the same model.

Names are compared as vLLM's own loader would place them, so that the two spellings of one
checkpoint (``model.layers.…`` and transformers 5's ``model.language_model.layers.…``) are
equal, and a tensor that the loader would silently ignore is not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from r1reward_rollout.update_info import TensorSpec

Canonical = Callable[[str], str | None]

_OUTPUT_EMBEDDING = "lm_head.weight"
_SHOWN = 5


class WrongWeights(RuntimeError):
    """The files are not a whole set of weights of the served model."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Tensors by canonical name, as the served checkpoint's files state them.

    ``dtype`` is the dtype of the served parameters. With ``tied`` embeddings the output
    embedding is optional on both sides, because the loader skips it.
    """

    tensors: Mapping[str, TensorSpec]
    dtype: str
    tied: bool
    canonical: Canonical

    @classmethod
    def of_folder(cls, folder: Path, *, dtype: str, tied: bool, canonical: Canonical):
        """Read the headers of the checkpoint in ``folder``."""
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise WrongWeights(
                f"the served model {folder} is not a local folder with safetensors files: "
                "weights can only be updated for such a model"
            )
        return cls(
            tensors=_canonical(read_headers(paths), canonical),
            dtype=dtype,
            tied=tied,
            canonical=canonical,
        )

    def check(
        self, found: Mapping[str, TensorSpec], stated: Mapping[str, TensorSpec] | None
    ) -> None:
        """Raise :class:`WrongWeights` unless ``found`` (the files) is the whole served model.

        ``stated`` is what the publisher says it wrote. Dtypes must be the checkpoint's or the
        served one, so that no update is silently rounded.
        """
        if stated is not None:
            _same("the publisher's list of tensors", dict(stated), "the files", dict(found))
        tensors = _canonical(found, self.canonical)
        expected = dict(self.tensors)
        if self.tied:
            for group in (tensors, expected):
                for name in [name for name in group if name.endswith(_OUTPUT_EMBEDDING)]:
                    del group[name]
        _same_names("the served model", expected, "the files", tensors)
        wrong = [
            f"{name} is {tensor.dtype}{list(tensor.shape)} instead of "
            f"{expected[name].dtype}{list(expected[name].shape)}"
            for name, tensor in tensors.items()
            if tensor.shape != expected[name].shape
            or tensor.dtype not in (expected[name].dtype, self.dtype)
        ]
        if wrong:
            raise WrongWeights(
                f"{len(wrong)} tensors differ from the served model (dtype {self.dtype}): "
                + _some(wrong)
            )


def read_headers(paths: Sequence[Path]) -> dict[str, TensorSpec]:
    """Name, dtype and shape of every tensor in the files; raises :class:`WrongWeights`."""
    tensors: dict[str, TensorSpec] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  it is no dict
                    part = opened.get_slice(name)
                    if name in tensors:
                        raise WrongWeights(f"tensor {name} is in two files")
                    tensors[name] = TensorSpec(part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise WrongWeights(f"{path.name} is not a safetensors file: {error}") from error
    return tensors


def _canonical(tensors: Mapping[str, TensorSpec], canonical: Canonical) -> dict[str, TensorSpec]:
    placed: dict[str, TensorSpec] = {}
    for name, tensor in tensors.items():
        place = canonical(name)
        if place is None:
            raise WrongWeights(f"the served model's loader ignores tensor {name}")
        if place in placed:
            raise WrongWeights(f"tensor {name} and another one are both {place}")
        placed[place] = tensor
    return placed


def _some(items: Iterable[str]) -> str:
    listed = sorted(items)
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _same_names(
    expected_by: str,
    expected: Mapping[str, TensorSpec],
    found_by: str,
    found: Mapping[str, TensorSpec],
) -> None:
    problems = []
    if missing := expected.keys() - found.keys():
        problems.append(f"{len(missing)} tensors of {expected_by} are missing: {_some(missing)}")
    if extra := found.keys() - expected.keys():
        problems.append(f"{len(extra)} tensors of {found_by} are unknown: {_some(extra)}")
    if problems:
        raise WrongWeights("; ".join(problems))


def _same(
    expected_by: str,
    expected: Mapping[str, TensorSpec],
    found_by: str,
    found: Mapping[str, TensorSpec],
) -> None:
    _same_names(expected_by, expected, found_by, found)
    if wrong := [name for name in found if found[name] != expected[name]]:
        raise WrongWeights(f"{expected_by} and {found_by} disagree about {_some(wrong)}")
