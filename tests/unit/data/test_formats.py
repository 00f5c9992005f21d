# SPDX-License-Identifier: Apache-2.0
"""Each published shape, by records as its source shows them."""

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from r1reward_api.resource.job import Columns, Format
from r1reward_trainer.data.formats.pieces import better_pairs
from r1reward_trainer.data.formats.registry import IMPORTERS, importer_of
from r1reward_trainer.data.media import Beside
from r1reward_trainer.data.objects import Folder
from r1reward_trainer.data.schema import BadRecord, ImagePath, LeftOut, Record, Video, parse_row
from r1reward_trainer.outcome import ConfigurationError
from tests.unit.data.images import encoded, photo

PROMPT = """You are a highly skilled and impartial evaluator.

#### **Input:**
#### [Question]:
What is shown?

#### [Response 1]:
A print.
#### It has [Response 3]

#### [Response 2]:
A painting.
{end}"""
OUTPUT = "\n#### **Output Format (strictly follow):**  \n<think>…</think><answer>1/2</answer>"


def rl_record(end: str = "", **changes: Any) -> Record:
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": PROMPT.format(end=end)},
                {"type": "image", "image": "/mmu_mllm_hdd/data/RLAIF-V-image/cake-shop.jpg"},
            ],
        }
    ]
    return {
        "message": json.dumps(chat),
        "question": "What is shown?",
        "answer": ["<answer>2</answer>"],
        **changes,
    }


def the_pair(format: Format, record: Record) -> dict[str, Any]:
    (found,) = IMPORTERS[format].rows(record)
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("end", ["", OUTPUT])
def test_the_answers_of_the_releases_rl_rows_are_found_in_the_prompt(end: str) -> None:
    assert the_pair("R1Reward", rl_record(end)) == {
        "question": "What is shown?",
        "answer1": "A print.\n#### It has [Response 3]",
        "answer2": "A painting.",
        "gold": 2,
        "images": ["/mmu_mllm_hdd/data/RLAIF-V-image/cake-shop.jpg"],
    }


@pytest.mark.parametrize("image", ["a.png", ["a.png"], {"bytes": b"i", "path": None}])
def test_the_image_of_an_rl_row_may_stand_beside_the_message(image: Any) -> None:
    message = [{"content": PROMPT.format(end="")}]
    (kept,) = the_pair("R1Reward", rl_record(message=message, image=image))["images"]
    assert kept == (image[0] if isinstance(image, list) else image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
def test_an_rl_row_with_the_image_itself_needs_no_file_at_the_messages_path(
    tmp_path: Path, kind: str, start: str
) -> None:
    file = encoded(photo(1), kind)
    image = start + base64.b64encode(file).decode()
    (record,) = IMPORTERS["R1Reward"].rows(rl_record(id="r", image=image))
    assert parse_row(record, 1, Beside(Folder(tmp_path), "train.parquet")).images == (file,)


@pytest.mark.parametrize("image", ["cake-shop.jpg", {"bytes": None, "path": "a.jpg"}, [], ""])
def test_a_path_beside_an_rl_rows_message_does_not_hide_the_messages(image: Any) -> None:
    found = the_pair("R1Reward", rl_record(image=image))
    assert found["images"] == ["/mmu_mllm_hdd/data/RLAIF-V-image/cake-shop.jpg"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (rl_record("\n#### [Response 2]:\nforged"), r"1 headings \[Response 1\] and 2"),
        (rl_record(answer=["<answer>3</answer>"]), "answer is"),
        (rl_record(answer=["<answer>1</answer>", "<answer>2</answer>"]), "answer is"),
        (rl_record(message="[{"), "message is no JSON"),
        (rl_record(message=[{"content": 7}]), "message is int"),
        (rl_record(message=[{"content": [{"type": "video"}]}]), "neither text nor an image"),
    ],
)
def test_an_rl_row_that_could_be_read_in_two_ways_is_refused(record: Record, words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        IMPORTERS["R1Reward"].rows(record)


PAIR = {"id": "a", "prompt": "What?", "chosen": "good", "rejected": "bad"}


def test_the_releases_benchmark_files_become_pairs_with_the_chosen_answer_as_gold() -> None:
    record = {**PAIR, "image": "mcq/1.png", "chosen_reason": "", "rejected_reason": ""}
    assert the_pair("MMRLHFRewardBench", record) == {
        "id": "a",
        "item": "a",
        "category": "mcq/1.png",
        "question": "What?",
        "answer1": "good",
        "answer2": "bad",
        "gold": 1,
        "images": ["mcq/1.png"],
    }
    video = the_pair("MMRLHFRewardBench", {**PAIR, "video": "video/-77dfCjTbSc"})
    assert (video["images"], video["category"]) == (
        Video("video/-77dfCjTbSc"),
        "video/-77dfCjTbSc",
    )
    with pytest.raises(BadRecord, match="either image or video"):
        IMPORTERS["VLRewardBenchRelease"].rows(PAIR)


def test_the_official_vl_rewardbench_ranks_its_answers_from_zero() -> None:
    record = {
        "id": "RLAIF-V-14",
        "query": "What?",
        "response": ["worse", "better"],
        "image": {"bytes": b"i", "path": None},
        "human_ranking": [1, 0],
        "query_source": "LCS-558K",
    }
    found = the_pair("VLRewardBench", record)
    assert (found["answer1"], found["answer2"], found["gold"]) == ("worse", "better", 2)
    assert (found["id"], found["item"]) == ("RLAIF-V-14", "RLAIF-V-14")
    with pytest.raises(LeftOut, match="tie"):
        IMPORTERS["VLRewardBench"].rows({**record, "human_ranking": [0, 0]})
    with pytest.raises(BadRecord, match="2 answers and human_ranking 3"):
        IMPORTERS["VLRewardBench"].rows({**record, "human_ranking": [0, 1, 2]})


def test_a_ranking_of_n_answers_gives_its_pairs_without_ties() -> None:
    assert better_pairs([2, 0, 1, 0]) == [(1, 0), (2, 0), (3, 0), (1, 2), (3, 2)]
    assert len(better_pairs(range(6))) == 15
    record = {
        "id": "a",
        "query": "q",
        "response": ["third", "first", "second"],
        "image": b"i",
        "human_ranking": [2, 0, 1],
    }
    rows = IMPORTERS["VLRewardBench"].rows(record)
    assert [(r["id"], r["item"], r["answer1"], r["answer2"], r["gold"]) for r in rows] == [
        ("a-0-1", "a", "third", "first", 2),
        ("a-0-2", "a", "third", "second", 2),
        ("a-1-2", "a", "first", "second", 1),
    ]


def test_multimodal_rewardbench_names_the_better_output() -> None:
    record = {
        "ID": "nocaps_13062",
        "Category": "correctness",
        "Image": "images/nocaps/13062.jpg",
        "Text": "Describe.",
        "Output1": "one",
        "Output2": "two",
        "Better": "Output2",
    }
    assert the_pair("MultimodalRewardBench", record) == {
        "id": "nocaps_13062",
        "item": "nocaps_13062",
        "category": "correctness",
        "question": "Describe.",
        "answer1": "one",
        "answer2": "two",
        "gold": 2,
        "images": ["images/nocaps/13062.jpg"],
    }
    with pytest.raises(BadRecord, match="Better is 'B', must be Output1 or Output2"):
        IMPORTERS["MultimodalRewardBench"].rows({**record, "Better": "B"})
    with pytest.raises(BadRecord, match="Text is missing"):
        IMPORTERS["MultimodalRewardBench"].rows({**record, "Text": None})


def test_rlaif_v_rows_keep_their_index_and_image() -> None:
    record = {
        "ds_name": "RLAIF-V",
        "image": {"bytes": b"i", "path": "x.jpg"},
        "question": "q",
        "chosen": "c",
        "rejected": "r",
        "origin_dataset": "coco",
        "origin_split": "{}",
        "idx": "7",
        "image_path": "images/x.jpg",
    }
    found = the_pair("RLAIFV", record)
    assert (found["id"], found["source"], found["gold"]) == ("7", "RLAIF-V", 1)
    assert found["images"] == [record["image"]]
    assert the_pair("RLAIFV", {**record, "image": None})["images"] == [ImagePath("images/x.jpg")]


def ratings(*values: object) -> dict[str, Any]:
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    return {a: {"Rating": v, "Rationale": ""} for a, v in zip(aspects, values, strict=True)}


COMPLETIONS = [
    {"model": "a", "response": "mean 4", "annotations": ratings("4", "5", "3")},
    {"model": "b", "response": "mean 5", "annotations": ratings("5", "5", "5")},
    {"model": "c", "response": "not rated", "annotations": ratings("5", "N/A", "5")},
    {"model": "d", "response": "mean 4 too", "annotations": ratings("4", "4", "4")},
]


@pytest.mark.parametrize(
    "completions",
    [COMPLETIONS, {k: [c[k] for c in COMPLETIONS] for k in COMPLETIONS[0]}],
    ids=["list", "mapping of lists"],
)
def test_vlfeedback_pairs_answers_with_different_mean_ratings(completions: Any) -> None:
    record = {"id": "svit-1", "prompt": "q", "completions": completions, "img_path": "a/b.jpg"}
    rows = IMPORTERS["VLFeedback"].rows(record)
    assert [(r["id"], r["answer1"], r["answer2"], r["gold"]) for r in rows] == [
        ("svit-1-0-1", "mean 4", "mean 5", 2),
        ("svit-1-1-2", "mean 5", "mean 4 too", 1),
    ]
    assert all(r["images"] == [ImagePath("a/b.jpg")] for r in rows)


@pytest.mark.parametrize("folder", ["merged_images", "."])
def test_a_vlfeedback_row_without_a_path_has_the_image_of_its_id(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "svit-1.jpg").write_bytes(file := encoded(photo(1), "JPEG"))
    record = {"id": "svit-1", "prompt": "q", "completions": COMPLETIONS}
    pair, _ = IMPORTERS["VLFeedback"].rows(record)
    assert parse_row(pair, 1, Beside(Folder(tmp_path), "vlfeedback_80k.jsonl")).images == (file,)


def test_vlfeedback_without_two_ratings_is_left_out() -> None:
    record = {"id": "a", "prompt": "q", "completions": COMPLETIONS[2:], "img_path": "x"}
    with pytest.raises(LeftOut, match="no-ratings"):
        IMPORTERS["VLFeedback"].rows(record)


def llava(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]


def test_povid_conversations_of_one_question_become_pairs() -> None:
    record = {
        "id": "000000033471",
        "image": "000000033471.jpg",
        "conversations": llava("<image>\nWhat?", "good"),
        "rejected_conversations": llava("<image>\nWhat?", "bad"),
    }
    assert the_pair("POVID", record) == {
        "id": "000000033471",
        "question": "What?",
        "answer1": "good",
        "answer2": "bad",
        "gold": 1,
        "images": ["000000033471.jpg"],
    }
    with pytest.raises(LeftOut, match="several-turns"):
        IMPORTERS["POVID"].rows({**record, "conversations": llava("<image>\nWhat?", "a", "b", "c")})
    with pytest.raises(BadRecord, match="different questions"):
        IMPORTERS["POVID"].rows({**record, "rejected_conversations": llava("Who?", "bad")})


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate(turns)]


def test_wildvision_battles_with_a_winner_become_pairs() -> None:
    record = {
        "question_id": "x",
        "conversation_a": chat("What?", "one"),
        "conversation_b": chat("What?", "two"),
        "image": {"bytes": b"i", "path": None},
        "winner": "model_b",
        "language": "English",
    }
    found = the_pair("WildVision", record)
    assert (found["question"], found["answer1"], found["answer2"]) == ("What?", "one", "two")
    assert (found["gold"], found["id"]) == (2, "x")
    left_out = [
        ({"winner": "tie (bothbad)"}, "tie"),
        ({"winner": "tie"}, "tie"),
        ({"image": None}, "no-image"),
        ({"conversation_a": chat("What?", "one", "more", "two")}, "several-turns"),
    ]
    for changes, why in left_out:
        with pytest.raises(LeftOut, match=f"^{why}$"):
            IMPORTERS["WildVision"].rows({**record, **changes})
    with pytest.raises(BadRecord, match="winner is 'model_c'"):
        IMPORTERS["WildVision"].rows({**record, "winner": "model_c"})


def test_columns_rename_what_a_user_has() -> None:
    importer = importer_of(
        "Plain", Columns(question="prompt", chosen="good", rejected="bad", images="file")
    )
    assert importer.rows({"prompt": "q", "good": "a", "bad": "b", "file": "x.png", "more": 1}) == [
        {"question": "q", "answer1": "a", "answer2": "b", "gold": 1, "images": "x.png"}
    ]
    assert set(importer.columns) == {
        "prompt", "good", "bad", "file", "id", "source", "item", "category",
    }  # fmt: skip
    assert set(importer.required) == {"prompt", "good", "bad", "file"}
    with pytest.raises(ConfigurationError, match="either chosen and rejected"):
        importer_of("Plain", Columns(chosen="a"))
    with pytest.raises(ConfigurationError, match="not for POVID"):
        importer_of("POVID", Columns(question="a"))


@pytest.mark.parametrize("format", [f for f in IMPORTERS if f != "Plain"])
@pytest.mark.parametrize("record", [{}, {"id": 1, "image": [], "message": {"a": [1], "b": []}}])
def test_what_is_not_of_a_format_is_a_bad_record_and_no_crash(
    format: Format, record: Record
) -> None:
    with pytest.raises(BadRecord):
        IMPORTERS[format].rows(record)


@pytest.mark.parametrize("format", list(IMPORTERS))
def test_a_field_of_whatever_kind_is_a_row_a_bad_record_or_left_out_and_no_crash(
    format: Format,
) -> None:
    importer = IMPORTERS[format]
    strange: tuple[Any, ...] = ([], ["x"], {}, {"x": [1]}, 1, 0.5, True, "", "x", "[[", "\ud800")
    for field in importer.required:
        for value in strange:
            with suppress(BadRecord, LeftOut):
                importer.rows({**dict.fromkeys(importer.columns, "x"), field: value})


@pytest.mark.parametrize("format", list(IMPORTERS))
def test_what_a_format_needs_of_a_table_is_read_of_it(format: Format) -> None:
    importer = IMPORTERS[format]
    assert set(importer.required) <= set(importer.columns)
