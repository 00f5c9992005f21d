# SPDX-License-Identifier: Apache-2.0
"""What was trained from what, and how."""

from collections.abc import Callable, Mapping

from r1reward_api.resource.job import R1RewardJobSpec
from r1reward_api.wire.manifest import StageManifest
from r1reward_api.wire.runconfig import InputRef, RunConfig, stage_prefix
from r1reward_trainer.evaluation.report.document import Artifact, Setting


def artifact(
    name: str, ref: InputRef, manifest: StageManifest, uri: Callable[[str], str]
) -> Artifact:
    """An input with its origin."""
    output = manifest.outputs[ref.output]
    return Artifact(
        name=name,
        stage=ref.stage.value,
        key=ref.key,
        uri=uri(f"{stage_prefix(ref.stage, ref.key)}/{output.path}"),
        digest=output.digest,
        bytes=output.bytes,
        rows=output.rows,
        created_by=manifest.created_by,
        created_at=manifest.created_at,
    )


def settings(config: RunConfig, ran: Mapping[str, str]) -> list[Setting]:
    """How it was trained and asked, a line each.

    Args:
        config: of this evaluation.
        ran: what the stages before it say they have done: the summaries of their manifests.
    """
    spec = config.spec
    lines = [
        (
            "Base model",
            spec.model.uri + (f" at {spec.model.revision}" if spec.model.revision else ""),
        ),
        ("Preference data", ", ".join(source.uri for source in spec.data.preferences)),
        (
            "Held out",
            f"{spec.data.holdout.fraction:g} of the images, seed {spec.data.holdout.seed}",
        ),
        *_contamination(spec, ran),
        *_training(spec, ran),
        (
            "Evaluation",
            f"every row in both orders, greedy, at most {spec.evaluate.max_new_tokens} tokens; "
            f"votes at temperature {spec.evaluate.temperature:g}; "
            f"{spec.evaluate.bootstrap_samples} bootstrap resamples, "
            f"seed {spec.evaluate.seed}",
        ),
        ("Computation", f"{config.serving.dtype}, rollout image {config.rollout_image}"),
    ]
    return [Setting(name=name, value=value) for name, value in lines]


def _contamination(spec: R1RewardJobSpec, ran: Mapping[str, str]) -> list[tuple[str, str]]:
    then = (
        "were left out" if spec.data.contamination == "Remove" else "were trained on all the same"
    )
    return [
        (
            name,
            f"{rows} {what} look like rows that are judged here, or share their text; they {then}",
        )
        for name, what, rows in (
            ("Contamination", "training rows", ran.get("contaminatedRows", "0")),
            ("Contamination of SFT", "chains of sft.chains", ran.get("contaminatedChains", "0")),
        )
        if rows != "0"
    ]


def _steps(ran: Mapping[str, str], name: str, epochs: int) -> str:
    """Passes over the rows are a bound: spec may end a stage after fewer steps."""
    return f"{ran[name]} steps, at most {epochs} epochs" if name in ran else f"{epochs} epochs"


def _training(spec: R1RewardJobSpec, ran: Mapping[str, str]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    if spec.annotate is not None:
        teacher = spec.annotate
        lines.append(
            (
                "Chains of thought",
                f"from {teacher.teacher.model}, at most {teacher.max_attempts} attempts a row"
                + (f", {teacher.max_rows} rows" if teacher.max_rows is not None else ""),
            )
        )
    if spec.sft is not None:
        sft = spec.sft
        lines.append(
            (
                "SFT",
                f"{_steps(ran, 'sftSteps', sft.epochs)}, batch {sft.batch_size}, "
                f"learning rate {sft.learning_rate:g}, seed {sft.seed}",
            )
        )
    if spec.rl is not None:
        rl = spec.rl
        lines.append(
            (
                "RL",
                f"{rl.algorithm.name} on {rl.rows.lower()} rows, "
                f"{_steps(ran, 'rlSteps', rl.epochs)}, "
                f"{rl.sampling.prompts_per_step} prompts × {rl.sampling.samples_per_prompt} "
                f"a step, learning rate {rl.learning_rate:g}, seed {rl.seed}",
            )
        )
    return lines
