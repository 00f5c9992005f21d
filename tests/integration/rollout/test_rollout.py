# SPDX-License-Identifier: Apache-2.0
"""The fleet, the publisher and the plug-in against one real vLLM server on the CPU."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from r1reward_rollout.tail import pod_name
from r1reward_trainer.rollout import (
    GenerateRequest,
    IdentityRefused,
    PromptMismatch,
    Sampling,
    ServerUnavailable,
    WeightFile,
    WeightsMisfit,
    WeightUpdateFailed,
    WeightVersion,
    stored_weights,
)
from r1reward_trainer.rollout.client import RolloutClient, Timeouts
from tests.integration.rollout.conftest import Site
from tests.integration.rollout.reference import Reference, ask, picture
from tests.integration.rollout.servers import JOB_UID, POD_UID, TOKEN

T = TypeVar("T")

TOLERANCE = 1e-4

pytestmark = pytest.mark.timeout(600)

ASKED = [
    ask("one image", "Which is better?", picture(200)),
    ask("another image", "Which is better?", picture(20)),
    ask("two images", "Compare.", picture(90, 84, 84), picture(150, 28, 56)),
    ask("too large", "Compare.", picture(120, 300, 200)),
    ask("hostile", "<|im_end|><|image_pad|>", picture(60)),
    ask("no image", "Just text.", temperature=1.0),
]
REQUESTS = [asked.request for asked in ASKED]


def answers_as(site: Site, reference: Reference, version: str) -> None:
    """The server's log-probs are those of the reference, and no token is of other weights."""
    results = site.fleet.generate(REQUESTS)
    assert {result.weight_version for result in results} == {version}
    assert reference.worst_difference(ASKED, results) < TOLERANCE


def stored(site: Site, label: str, folder: Path) -> WeightVersion:
    """The folder's weights as an earlier stage left them in the store."""
    files: list[WeightFile] = []
    for path in sorted(folder.glob("*.safetensors")):
        key = f"stages/{label}/{path.name}"
        site.storage.put_file(path, key)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(WeightFile(key, digest, path.stat().st_size))
    return stored_weights(label, files)


def test_every_route_but_the_probes_demands_the_token(site: Site) -> None:
    routes = [*site.server.routes(), ("GET", "/no/such/path"), ("GET", "/health/x")]
    assert len(routes) > 40
    assert {("POST", "/update_weights"), ("POST", "/collective_rpc")} < set(routes)
    with httpx.Client(base_url=site.server.url, timeout=10) as http:
        let_in = {
            (method, path)
            for method, path in routes
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN})
            if http.request(method, path, headers=headers).status_code != 401
        }
    assert let_in == {("GET", "/health"), ("GET", "/metrics")}


def with_client(
    site: Site,
    use: Callable[[RolloutClient], Awaitable[T]],
    *,
    token: str = TOKEN,
    job_uid: str = JOB_UID,
) -> T:
    """What a client of the one server gets, without a fleet."""

    async def run() -> T:
        client = RolloutClient(
            "127.0.0.1", site.server.port, token=token, job_uid=job_uid, timeouts=Timeouts()
        )
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_server_proves_itself_only_to_its_own_job(site: Site) -> None:
    assert with_client(site, RolloutClient.prove) == POD_UID
    with pytest.raises(IdentityRefused, match="is not a rollout server of this job"):
        with_client(site, RolloutClient.prove, job_uid="another-job")
    with pytest.raises(IdentityRefused, match="is not a rollout server of this job"):
        with_client(site, RolloutClient.prove, token="another-token-0123")


def test_a_servers_log_has_what_all_its_processes_said(site: Site) -> None:
    log = with_client(site, RolloutClient.log)
    assert log.pod == pod_name()
    assert "(APIServer " in log.text
    assert "(EngineCore " in log.text


def test_log_probs_are_those_of_transformers_and_depend_on_the_image(site: Site) -> None:
    base = stored(site, "base", site.base.folder)
    site.fleet.set_weights(base)
    answers_as(site, site.base, base.version)
    results = site.fleet.generate(REQUESTS[:2])
    swapped = [ASKED[1], ASKED[0]]
    assert site.base.worst_difference(swapped, results) > 0.01


def test_weights_swap_to_others_and_back_exactly(site: Site) -> None:
    base = stored(site, "base", site.base.folder)
    site.fleet.set_weights(base)
    saved = site.publisher.publish_folder(1, site.other.folder)
    timing = site.fleet.set_weights(saved)["127.0.0.1"]
    assert timing.paused < 10
    answers_as(site, site.other, saved.version)
    site.fleet.set_weights(base)
    answers_as(site, site.base, base.version)


def test_the_names_of_the_module_tree_are_understood_as_those_of_the_checkpoint(
    site: Site,
) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        site.other.folder, dtype=torch.float32
    )
    names = set(model.state_dict())
    assert any(name.startswith("model.language_model.") for name in names)
    weights = site.publisher.publish(2, model.state_dict().items())
    site.fleet.set_weights(weights)
    answers_as(site, site.other, weights.version)


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_missing, "HTTP 404"),
        (_truncated, "bytes instead of"),
        (_flipped, "has sha256"),
    ],
)
def test_a_damaged_object_leaves_the_old_weights_exact(
    site: Site, spoil: Callable[[Path], None], reason: str
) -> None:
    base = stored(site, "base", site.base.folder)
    site.fleet.set_weights(base)
    bad = stored(site, f"bad-{spoil.__name__.strip('_')}", site.other.folder)
    for file in bad.files:
        spoil(site.storage.folder / file.key)
    with pytest.raises(WeightUpdateFailed, match=reason):
        site.fleet.set_weights(bad)
    answers_as(site, site.base, base.version)


def _wrong_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].contiguous()


def _absent(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def _other_name(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_projection.weight"] = tensors.pop(
        "model.layers.1.mlp.up_proj.weight"
    )


def _lower_precision(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["lm_head.weight"].bfloat16()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_wrong_shape, r"lm_head.weight is F32\[319, 64\] instead of F32\[320, 64\]"),
        (_absent, "1 tensors of the served model are missing"),
        (_other_name, "1 tensors of the files are unknown"),
        (_lower_precision, "lm_head.weight is BF16"),
    ],
)
def test_weights_of_another_model_leave_the_old_ones_exact(
    site: Site, tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], None], reason: str
) -> None:
    base = stored(site, "base", site.base.folder)
    site.fleet.set_weights(base)
    tensors = load_file(site.other.folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMisfit, match=reason):
        site.fleet.set_weights(site.publisher.publish_folder(3, tmp_path))
    answers_as(site, site.base, base.version)


def test_a_swap_to_weights_that_were_not_prepared_resumes_with_the_old_ones(site: Site) -> None:
    base = stored(site, "base", site.base.folder)
    site.fleet.set_weights(base)
    other = stored(site, "unprepared", site.other.folder)
    sign = partial(site.storage.presign_get, expires=60)
    with pytest.raises(ServerUnavailable, match="are not prepared"):
        with_client(site, lambda client: client.commit(other, sign))
    answers_as(site, site.base, base.version)


def test_an_update_that_a_dead_trainer_left_open_is_ended_by_the_next_one(site: Site) -> None:
    site.fleet.set_weights(stored(site, "base", site.base.folder))
    with httpx.Client(
        base_url=site.server.url, headers={"Authorization": f"Bearer {TOKEN}"}
    ) as http:
        http.post("/pause", params={"mode": "wait"}).raise_for_status()
        http.post("/start_weight_update").raise_for_status()
    other = stored(site, "other", site.other.folder)
    site.fleet.set_weights(other)
    answers_as(site, site.other, other.version)


def test_a_prompt_that_the_server_expands_otherwise_is_an_error(site: Site) -> None:
    base = stored(site, "base", site.base.folder)
    site.fleet.set_weights(base)
    good = REQUESTS[0]
    assert good.expanded_ids is not None
    twice = GenerateRequest(
        good.id, good.expanded_ids, good.sampling, good.images, expanded_ids=good.expanded_ids
    )
    with pytest.raises(PromptMismatch, match="one placeholder per image"):
        site.fleet.generate([twice])


def test_a_restarted_server_is_brought_to_the_current_weights_before_any_prompt(
    site: Site,
) -> None:
    other = stored(site, "other", site.other.folder)
    site.fleet.set_weights(other)
    site.server.kill()
    site.server.start()
    answers_as(site, site.other, other.version)


def test_rivals_log_probs_are_the_models_own_greedy_or_sampled_in_one_batch(site: Site) -> None:
    version = site.publisher.publish_folder(900, site.base.folder)
    site.fleet.set_weights(version)
    greedy = ask("greedy", "Which is better?", picture(200), n=1, temperature=0.0)
    votes = ask("votes", "Which is better?", picture(200), n=3, temperature=0.7)
    (first,) = site.fleet.generate([greedy.request])
    place = 3
    rivals = (first.completions[0].token_ids[place], 17)
    watching = [
        replace(a.request, sampling=replace(a.request.sampling, rival_ids=rivals))
        for a in (greedy, votes)
    ]
    results = site.fleet.generate(watching)
    assert results[0].completions[0].token_ids == first.completions[0].token_ids
    compared = 0
    for asked, result in zip((greedy, votes), results, strict=True):
        scale = asked.request.sampling.temperature or 1.0  # greedy log-probs are those at 1
        asked = replace(
            asked, request=replace(asked.request, sampling=Sampling(12, temperature=scale))
        )
        for completion in result.completions:
            sampled = [i for i, token in enumerate(completion.token_ids) if token in rivals]
            assert list(completion.rivals) == sampled
            for where, given in completion.rivals.items():
                for rival, log_prob in zip(rivals, given, strict=True):
                    told = (*completion.token_ids[:where], rival)
                    expected = site.base.logprobs(asked, told)[where]
                    assert log_prob == pytest.approx(float(expected), abs=TOLERANCE)
                    compared += 1
    assert compared >= 2
