# SPDX-License-Identifier: Apache-2.0
"""`make bench-evaluate`: pairs a second of evaluate, beside a batch-1 `generate` loop.

The peer is how the R1-Reward release evaluates: one prompt after the other through transformers'
`generate`. Both judge the same pairs in both orders, greedily, with the same weights and the same
prompts, in turn on the same machine; prompts are rendered anew in every round on both sides. The
model is a tiny one on the CPU, so the ratio says what batching and the absence of a Python loop a
token give here, and nothing about a GPU.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from r1reward_trainer.data.rows import Row
from r1reward_trainer.evaluation.judging import AskingRules, in_order, judge_rows
from r1reward_trainer.evaluation.predictions import HELDOUT, ORDERS
from r1reward_trainer.evaluation.sets import evaluation_set
from r1reward_trainer.render import Renderer
from r1reward_trainer.rollout import FleetOptions, RolloutFleet, WeightPublisher
from tests.integration.rollout.reference import MAX_PIXELS, MIN_PIXELS, picture
from tests.integration.rollout.servers import JOB_UID, TOKEN, object_store, rollout_server
from tests.integration.rollout.tiny_model import build_model, build_processor

RESULT = Path("docs/results/evaluate.json")
IN_FLIGHT = 32


def main() -> int:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    result = measure(arguments.pairs, arguments.tokens, arguments.rounds)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + f"\n{arguments.out}\n")
    return 0


def measure(pairs: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Both in turn, after one unmeasured round each."""
    rows = [_row(i) for i in range(pairs)]
    renderer = Renderer(
        build_processor(),
        template="{question} 1: {answer1} 2: {answer2}",
        min_pixels=MIN_PIXELS,
        max_pixels=MAX_PIXELS,
        max_prompt_tokens=400,
    )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in ("objects", "server"):
            (folder / name).mkdir()
        model = build_model(folder / "model", 1)
        peer = Peer(model, renderer, tokens)
        threads = min((1, os.cpu_count() or 1), key=lambda n: peer.seconds(rows[:4], n)[0])
        with (
            object_store(folder / "objects") as storage,
            rollout_server(folder / "server", model, max_num_seqs=IN_FLIGHT) as server,
            RolloutFleet(
                FleetOptions(service="127.0.0.1", job_uid=JOB_UID, port=server.port),
                token=TOKEN,
                presign=lambda key: storage.presign_get(key, 3600),
            ) as fleet,
        ):
            publisher = WeightPublisher(
                storage, prefix="weights", attempt=1, work_dir=folder / "work"
            )
            weights = publisher.publish_folder(1, model)
            fleet.set_weights(weights)
            rules = AskingRules((), True, 1.0, tokens, 0)
            given = evaluation_set(HELDOUT, None, rows, range(pairs))

            def ours() -> tuple[float, list[str], list[int]]:
                begin = time.monotonic()
                said = judge_rows(
                    given, range(pairs), "base", weights.version, rules, renderer, fleet
                )
                seconds = time.monotonic() - begin
                return seconds, [p.response for p in said], [p.tokens for p in said]

            ours()
            measured = [(ours(), peer.seconds(rows, threads)) for _ in range(rounds)]
    return _result(measured, pairs, tokens, threads)


class Peer:
    """One prompt after the other through `generate`."""

    def __init__(self, folder: Path, renderer: Renderer, tokens: int) -> None:
        model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()
        self._renderer = renderer
        self._tokens = tokens

    @torch.inference_mode()
    def seconds(self, rows: Sequence[Row], threads: int) -> tuple[float, list[str], list[int]]:
        """Time, responses and their lengths."""
        torch.set_num_threads(threads)
        begin = time.monotonic()
        texts: list[str] = []
        lengths: list[int] = []
        for row in rows:
            for order in ORDERS:
                prompt = self._renderer.prompt(row.question, *in_order(row, order), row.images)
                ids = torch.tensor([prompt.token_ids])
                generated: Any = self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    pixel_values=prompt.pixel_values,
                    image_grid_thw=prompt.image_grid_thw,
                    mm_token_type_ids=(ids == self._renderer.image_token_id).int(),
                    max_new_tokens=self._tokens,
                    do_sample=False,
                    eos_token_id=self._renderer.end_token_id,
                    pad_token_id=self._renderer.pad_token_id,
                )
                response = generated[0, ids.shape[1] :].tolist()
                texts.append(self._renderer.decode(response))
                lengths.append(len(response))
        seconds = time.monotonic() - begin
        torch.set_num_threads(1)
        return seconds, texts, lengths


def _row(number: int) -> Row:
    return Row(
        id=str(number),
        question=f"Which of the two is better for picture {number}?",
        answer1="a red square " * (1 + number % 4),
        answer2="a blue circle " * (1 + number % 3),
        gold=1 + number % 2,
        images=(picture(number * 37 % 256),),
        source="bench",
    )


Round = tuple[tuple[float, list[str], list[int]], tuple[float, list[str], list[int]]]


def _result(measured: Sequence[Round], pairs: int, tokens: int, threads: int) -> dict[str, Any]:
    ratios = [theirs[0] / own[0] for own, theirs in measured]
    own, theirs = measured[0]
    return {
        "command": "make bench-evaluate",
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "model": "Qwen2.5-VL with 2 layers and random weights, float32",
        "pairs": pairs,
        "prompts": pairs * len(ORDERS),
        "longestAnswer": tokens,
        "serverSequencesAtOnce": IN_FLIGHT,
        "peerThreads": threads,
        "evaluate": _side([o for o, _ in measured], pairs),
        "generateLoop": _side([t for _, t in measured], pairs),
        "ratio": _spread(ratios),
        "answersEqual": statistics.mean(a == b for a, b in zip(own[1], theirs[1], strict=True)),
    }


def _side(rounds: Sequence[tuple[float, list[str], list[int]]], pairs: int) -> dict[str, Any]:
    return {
        "pairsPerSecond": _spread([pairs / seconds for seconds, _, _ in rounds]),
        "answerTokensMean": statistics.mean(length for _, _, ls in rounds for length in ls),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    sys.exit(main())
