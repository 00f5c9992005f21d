# SPDX-License-Identifier: Apache-2.0
"""What the loops of SFT and RL share: resume, save, stop, log and finish."""

import hashlib
import json
import math
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import torch

from r1reward_api.reasons import Reason
from r1reward_api.resource.training import Checkpoint
from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer import model, training_state
from r1reward_trainer.batch import Example, micro_batches
from r1reward_trainer.context import StageContext
from r1reward_trainer.data.rows import Row
from r1reward_trainer.distributed import Peers
from r1reward_trainer.images import InvalidImage
from r1reward_trainer.outcome import ConfigurationError, Interrupted, Outcome, ProgramError
from r1reward_trainer.render import Prompt, PromptTooLong, Renderer
from r1reward_trainer.storage.checkpoint import Checkpoints
from r1reward_trainer.storage.outputs import begin, fetch_input, publish, upload_output

T = TypeVar("T")

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)


_WHAT_HELPS = (
    "The last checkpoint is from before and is kept. Try a lower learningRate, a lower "
    "optimizer.maxGradNorm or more warm-up, and look at grad_norm in the metrics before this step"
)


@dataclass(frozen=True)
class Inputs:
    """The stage's inputs on this pod's disk, and what stands for them in checkpoints."""

    model: Path
    rows: Path
    fingerprints: dict[str, str]


def already_done(config: RunConfig, context: StageContext, peers: Peers) -> Outcome | None:
    """The stage's result when somebody has computed it; the same answer on all processes."""
    manifest = peers.leader(begin, context.store, config)
    return Outcome(manifest, cache_hit=manifest.created_by != config.job.uid) if manifest else None


def fetch_inputs(config: RunConfig, context: StageContext, peers: Peers, rows: str) -> Inputs:
    """Downloads model and rows once per pod.

    Args:
        rows: name of the input with the rows.
    """
    peers.at("fetching inputs")
    shared = context.scratch.parent / "shared"
    if peers.local_rank == 0:
        shutil.rmtree(shared, ignore_errors=True)
    folders = {"model": shared / "model", rows: shared / rows}
    for name, folder in folders.items():
        peers.once_per_pod(fetch_input, context.store, config, name, folder)
    return Inputs(
        model=folders["model"],
        rows=folders[rows],
        fingerprints={
            "starting model": config.inputs["model"].digest,
            "data": config.inputs[rows].digest,
            "tokenizer and processor": _digest_of(folders["model"], _TOKENIZER_FILES),
        },
    )


class Journal:
    """JSON lines of one run, on rank 0; part of every checkpoint, so that a resumed run goes on
    where the checkpoint stands."""

    def __init__(self, folder: Path, name: str, writes: bool) -> None:
        self.path = folder / name
        self._writes = writes
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line."""
        if self._writes:
            with self.path.open("a") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line of metrics; what is not finite is left out."""
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        finite = {k: v for k, v in values.items() if math.isfinite(v)}
        self.append({"step": step, "time": time, "metrics": finite})

    def total(self, metric: str) -> float:
        """The sum of a metric over all lines so far, those before a resumption among them."""
        return sum(self._values(metric))

    def last(self, metric: str) -> float | None:
        """The last value of a metric, whichever attempt wrote it; None without any."""
        return next(iter(deque(self._values(metric), maxlen=1)), None)

    def _values(self, metric: str) -> Iterator[float]:
        if not self.path.exists():
            return
        with self.path.open() as file:
            for line in file:
                if (value := json.loads(line)["metrics"].get(metric)) is not None:
                    yield value


class Run:
    """One attempt's training state and where it is kept.

    Args:
        config, context, peers: of the stage.
        policy, optimizer: what is trained.
        settings: when checkpoints are made.
        fingerprints: see `Inputs`.
        journals: files of rank 0 that belong to the state.
    """

    def __init__(
        self,
        config: RunConfig,
        context: StageContext,
        peers: Peers,
        policy: model.Policy,
        optimizer: torch.optim.AdamW,
        settings: Checkpoint,
        fingerprints: Mapping[str, str],
        journals: Sequence[Journal],
    ) -> None:
        self._config = config
        self._context = context
        self._peers = peers
        self._policy = policy
        self._optimizer = optimizer
        self._settings = settings
        self._journals = journals
        self._saved = 0  # before the first step there is nothing to save
        self._checkpoints = Checkpoints(
            context.store,
            config.run_prefix,
            config.attempt,
            settings.keep,
            peers.leader(lambda: uuid.uuid4().hex[:8]),
            fingerprints,
        )

    def resume(self) -> int:
        """Restores the last committed checkpoint of any attempt of this run.

        Returns:
            Steps done; 0 without a checkpoint.
        """
        self._peers.at("restoring the checkpoint")
        manifest = self._peers.leader(self._checkpoints.claim)
        if manifest is None:
            return 0
        folder = self._context.scratch.parent / "shared" / "checkpoint"
        self._peers.once_per_pod(self._checkpoints.fetch, manifest, folder)
        self._peers.together(training_state.load_state, folder, self._policy, self._optimizer)
        for journal in self._journals:
            kept = folder / journal.path.name
            if self._peers.rank == 0 and kept.exists():
                shutil.copyfile(kept, journal.path)
        self._peers.barrier()  # before the first process of the pod deletes what others read
        self._peers.once_per_pod(shutil.rmtree, folder)
        self._saved = manifest.step
        return manifest.step

    def after_step(self, step: int) -> None:
        """Saves when a checkpoint is due.

        Raises:
            Interrupted: after SIGTERM to any process, with the state saved.
        """
        self.raise_if_stopped(step)
        if step % self._settings.every_steps == 0:
            self.save(step)

    def raise_if_stopped(self, step: int) -> None:
        """For the middle of a step too, as long as no weight has changed in it.

        Args:
            step: steps done, whose state this is.

        Raises:
            Interrupted: after SIGTERM to any process, with the state saved.
        """
        if self._peers.any(self._context.stop.is_set()):
            self.interrupt(step)

    def interrupt(self, step: int) -> NoReturn:
        """Saves the state after so many steps and ends the stage; for all processes at once.

        Raises:
            Interrupted: always.
        """
        self.save(step)
        raise Interrupted(f"stopped by SIGTERM; the state after step {step} is saved", step)

    def save(self, step: int) -> None:
        """Commits the state after a step; every process writes what it holds.

        Raises:
            ProgramError: NonFiniteLoss, see `_check_weights`.
        """
        if step == self._saved:
            return
        self._check_weights(step)
        self._peers.at(f"saving after step {step}")
        folder = self._context.scratch / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)

        def upload() -> list[Any]:
            training_state.save_state(folder, self._policy, self._optimizer, self._peers.rank)
            for journal in self._journals:
                if journal.path.exists():
                    shutil.copyfile(journal.path, folder / journal.path.name)
            return self._checkpoints.upload(step, folder)

        uploaded = self._peers.gather(upload)
        files = [file for of_rank in uploaded for file in of_rank]
        uri = self._peers.leader(self._checkpoints.commit, step, files)
        shutil.rmtree(folder)
        self._saved = step
        self._context.progress.checkpoint(step, uri)

    def finish(self, step: int, base: Path, summary: Mapping[str, str]) -> Outcome:
        """Uploads weights and metrics, and publishes the stage's manifest.

        Args:
            step: steps done.
            base: folder of the starting model, whose configuration and processor are kept.
            summary: figures for the job's status.

        Raises:
            Interrupted: after SIGTERM to any process while the weights were written.
            ProgramError: NonFiniteLoss, see `_check_weights`.
            InfrastructureError: StaleWriter, when a newer trainer has taken over.
        """
        self._check_weights(step)
        self._peers.leader(self._checkpoints.confirm)
        context, config, leads = self._context, self._config, self._peers.rank == 0
        context.progress.update(message="writing the weights")
        self._peers.at("writing the weights")
        weights, metrics = context.scratch / "weights", context.scratch / "metrics"
        shutil.rmtree(weights, ignore_errors=True)
        self._peers.gather(model.export, self._policy, base, weights if leads else None)
        self.raise_if_stopped(step)  # the last step's state need not have been saved

        def upload() -> Outcome:
            metrics.mkdir(exist_ok=True)
            for journal in self._journals:
                if journal.path.exists():
                    shutil.copyfile(journal.path, metrics / journal.path.name)
            outputs = {
                "weights": upload_output(context.store, config, "weights", weights),
                "metrics": upload_output(context.store, config, "metrics", metrics),
            }
            manifest, adopted = publish(context.store, config, outputs, dict(summary))
            return Outcome(manifest, cache_hit=adopted, step=step)

        return self._peers.leader(upload)

    def _check_weights(self, step: int) -> None:
        """Keeps weights that hold a NaN out of checkpoints and results, however it came in.

        Raises:
            ProgramError: NonFiniteLoss.
        """
        own = (training_state.local_rows(p).rows for p in self._policy.parameters())
        if self._peers.any(not all(bool(rows.isfinite().all()) for rows in own)):
            raise ProgramError(
                Reason.NON_FINITE_LOSS,
                f"the weights after step {step} hold values that are not finite, though the loss "
                f"was. {_WHAT_HELPS}",
            )


def distribute(
    examples: Sequence[Example], stand_in: Example, size: int, count: int
) -> list[list[Example]]:
    """A process's examples as `count` micro-batches of at most `size`.

    Where they run out, a micro-batch is the stand-in without a response: it takes part in the
    collectives and adds nothing to any sum.
    """
    nothing = replace(stand_in, response_ids=())
    cut = micro_batches([len(e) for e in examples], size, count)
    return [[examples[i] for i in chosen] or [nothing] for chosen in cut]


class Prefetcher(Generic[T]):
    """Makes the next step's input in a thread while the current step is trained."""

    def __init__(self, make: Callable[[int], T], first: int, last: int) -> None:
        self._make = make
        self._last = last
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._next: Future[T] | None = None
        self._submit(first)

    def get(self, step: int) -> T:
        """The input of a step; steps must be asked for in order."""
        if self._next is None:
            raise ValueError(f"step {step} is beyond the last")
        current = self._next
        result = current.result()
        self._submit(step + 1)
        return result

    def close(self) -> None:
        """Ends the thread after the input that it may be making."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, step: int) -> None:
        self._next = self._pool.submit(self._make, step) if step < self._last else None


def render_row(renderer: Renderer, row: Row) -> Prompt:
    """The prompt of a row.

    Raises:
        ConfigurationError: InvalidData, naming the row.
    """
    try:
        return renderer.prompt(row.question, row.answer1, row.answer2, row.images)
    except (PromptTooLong, InvalidImage) as error:
        raise ConfigurationError(
            Reason.INVALID_DATA,
            f"row {row.id}: {error}; remove the row or raise data.maxPromptTokens",
        ) from error


def check_finite(step: int, loss: float, grad_norm: float, rate: float, about: str) -> None:
    """Ends the run before a broken update reaches a checkpoint.

    Args:
        about: the rows or samples that were trained on.

    Raises:
        ProgramError: NonFiniteLoss, with what helps to find the cause.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    what = "loss" if not math.isfinite(loss) else "gradient norm"
    raise ProgramError(
        Reason.NON_FINITE_LOSS,
        f"the {what} of step {step} is not finite (loss {loss:g}, gradient norm {grad_norm:g}, "
        f"learning rate {rate:g}; {about}). {_WHAT_HELPS}",
    )


def _digest_of(folder: Path, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        if path.exists():
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
