# SPDX-License-Identifier: Apache-2.0
"""What the run configuration makes of the verifier, and to whom it shows which key."""

import asyncio
import copy
import json
import re
from pathlib import Path

import pytest

from r1reward_api.wire.runconfig import RunConfig
from r1reward_trainer.environment import Environment
from r1reward_trainer.outcome import ConfigurationError
from r1reward_trainer.render import chain
from r1reward_trainer.verifier.protocol import Sample
from r1reward_trainer.verifier.serve import build_service, serve
from tests.unit.verifier.conftest import TOKEN

RUN = {
    "job": {"name": "judge", "namespace": "team", "uid": "u"},
    "stage": "rl",
    "attempt": 1,
    "spec": {
        "runtimeRef": {"name": "cpu"},
        "model": {"uri": "s3://models/base"},
        "storage": {"uri": "s3://out/team", "secretRef": {"name": "s3"}},
        "data": {"preferences": [{"uri": "s3://data/*.parquet"}]},
        "rl": {"rows": "All"},
    },
    "serving": {},
}


def config(judge=None, judge_url=None, **rl):
    run = copy.deepcopy(RUN)
    run["spec"]["rl"] |= {"verifier": {"judge": judge} if judge else {}, **rl}
    run["services"] = {"judgeUrl": judge_url} if judge_url else {}
    return RunConfig.model_validate(run)


def score(run, environ):
    async def reward():
        service = build_service(run, TOKEN, environ)
        try:
            sample = Sample(id="a", response=chain(1, "Response 1"), gold=1)
            return (await service.rewards([sample])).rewards[0]
        finally:
            await service.close()

    return asyncio.run(reward())


def test_the_jobs_own_judge_gets_the_attempts_token(judge_stub):
    run = config({"model": "hf://some/judge"}, judge_stub.url)
    assert score(run, {"R1_JUDGE_API_KEY": "key"}).total == 2.0
    assert judge_stub.keys == [f"Bearer {TOKEN}"]
    assert judge_stub.calls[0]["model"] == "the-judge"


@pytest.mark.parametrize(
    ("environ", "key"), [({"R1_JUDGE_API_KEY": "key"}, "Bearer key"), ({}, None)]
)
def test_an_endpoint_gets_its_own_key_and_never_the_attempts_token(judge_stub, environ, key):
    run = config({"endpoint": judge_stub.url, "endpointModel": "gpt"}, judge_stub.url)
    assert score(run, environ).total == 2.0
    assert judge_stub.keys == [key]
    assert judge_stub.calls[0]["model"] == "gpt"


def test_without_a_judge_nobody_is_asked():
    assert score(config(), {}).judge == "skipped"


def test_a_judge_without_an_address_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"services\.judgeUrl"):
        build_service(config({"model": "hf://some/judge"}), TOKEN, {})


@pytest.mark.parametrize(
    "url", ["http://[::1::2]/v1", "http://judge:http/v1", "http://judge:0/v1", "http://a:99999/v1"]
)
def test_an_endpoint_that_could_never_be_asked_is_a_configuration_error(url: str):
    run = config({"endpoint": "http://judge/v1"}, url)
    with pytest.raises(ConfigurationError, match=r"rl\.verifier\.judge\.endpoint"):
        build_service(run, TOKEN, {})


def test_the_run_configuration_of_the_docs_makes_a_verifier_with_its_judge(judge_stub):
    page = (Path(__file__).parents[3] / "docs/verifier.md").read_text()
    section = page.partition("## Without a job\n")[2].partition("\n## ")[0]
    (text,) = re.findall(r"^```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    run = json.loads(text)
    run["spec"]["rl"]["verifier"]["judge"]["endpoint"] = judge_stub.url
    assert score(RunConfig.model_validate(run), {"R1_JUDGE_API_KEY": "key"}).total == 2.0
    assert judge_stub.keys == ["Bearer key"]
    assert judge_stub.calls[0]["model"] == "my-judge"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_a_token_the_verifier_does_not_start(tmp_path: Path, content):
    (tmp_path / "run.json").write_text(config().model_dump_json(by_alias=True))
    if content is not None:
        (tmp_path / "token").write_text(content)
    environment = Environment(
        run_config=tmp_path / "run.json",
        token_file=tmp_path / "token",
        progress_token_file=tmp_path / "progress",
        termination_log=tmp_path / "log",
        scratch=tmp_path,
        models=tmp_path,
        rank=0,
        local_rank=0,
        world_size=1,
    )
    with pytest.raises(ConfigurationError, match="serves nobody"):
        serve(environment)
