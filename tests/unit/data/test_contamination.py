# SPDX-License-Identifier: Apache-2.0
import unicodedata
from dataclasses import replace
from random import Random

import pytest
from PIL import Image

from r1reward_trainer.data.contamination import Findings, Match, Screen, contamination_warnings
from r1reward_trainer.data.rows import Row, SetRow
from r1reward_trainer.data.shingles import WORDS, shingles
from tests.unit.data.images import encoded, photo, png


def words(seed: int, count: int) -> str:
    random = Random(seed)
    return " ".join(f"w{random.randrange(5000)}" for _ in range(count))


def row(number: int, **changes: object) -> Row:
    made = Row(
        f"row {number}",
        "Describe this image in detail.",
        words(2 * number, 60),
        words(2 * number + 1, 60),
        1,
        (png(number),),
        "",
    )
    return replace(made, **changes)  # pyright: ignore[reportArgumentType]


def judged(made: Row, item: str) -> SetRow:
    values = {name: getattr(made, name) for name in Row.__slots__}
    return SetRow(**values, item=item, category="")


@pytest.fixture(scope="module")
def screen() -> Screen:
    screen = Screen()
    for number in range(20):
        screen.add("heldout", row(number))
    for number in range(20, 40):
        screen.add("bench", judged(row(number), f"item {number}"))
    return screen


def test_a_copy_of_an_image_is_found_in_its_set(screen: Screen) -> None:
    copy = encoded(photo(25).resize((60, 40)), "JPEG", quality=60)
    other = row(100, images=(png(101), copy))
    assert [(m.set, m.item, m.kind) for m in screen.check(other)] == [("bench", "item 25", "image")]
    assert screen.check(row(100)) == []
    assert screen.check(row(100, images=(png(3),))) == [
        Match("heldout", "row 3", "image", 1.0, (3,))
    ]


def test_a_text_is_found_again_with_another_image_and_in_another_order(screen: Screen) -> None:
    known = row(7)
    turned = row(100, answer1=known.answer2, answer2=f"Well, {known.answer1.upper()}!")
    assert screen.check(turned) == [Match("heldout", "row 7", "text", 1.0, (7,))]
    part = row(100, answer1=" ".join(known.answer1.split()[:20]))
    assert screen.check(part) == [], "a sixth of a row's text is no copy"


@pytest.mark.parametrize("rows", [3, 16, 200])
def test_the_wording_of_questions_and_short_answers_give_nothing_away(rows: int) -> None:
    question = (
        "Look at the picture and answer with one word: which animal is it, please? If you cannot "
        "tell, say so."
    )
    screen = Screen()
    for number in range(rows):
        screen.add("bench", row(number, question=question, answer1="a cat", answer2="a dog"))
    assert screen.check(row(900, question=question, answer1="a cat", answer2="a dog")) == []


def test_a_question_about_one_image_is_known_although_several_rows_ask_it() -> None:
    question = (
        "How many of the people under the red umbrella beside the fountain of the old market "
        "square carry a bag?"
    )
    asked = {"question": question, "answer1": "two", "answer2": "three"}
    screen = Screen()
    for number in range(6):
        screen.add("bench", row(number, images=(png(0),), **asked))
    for number in range(6, 20):
        screen.add("bench", row(number))
    (match,) = screen.check(row(900, **asked))
    assert (match.kind, set(match.rows)) == ("text", set(range(6)))


def test_all_rows_about_an_image_count_when_training_shows_it() -> None:
    screen = Screen()
    for number in range(5):
        screen.add("bench", judged(row(number, images=(png(0),)), "one id"))
    white = encoded(Image.new("RGB", (64, 64), "white"))
    for name in ("bench", "other"):
        screen.add(name, row(5, images=(white,)))
    findings = Findings({"bench": 6, "other": 1})
    for number, image in enumerate((png(0), png(0), white)):
        one = row(100 + number, images=(image,))
        findings.note(one, screen.check(one))
    sets = findings.figures()["sets"]
    assert [(sets[s]["givenAway"], sets[s]["byImage"]) for s in ("bench", "other")] == [
        (6, 3),
        (1, 1),
    ]


def test_text_without_spaces_is_compared_sign_by_sign() -> None:
    signs = "".join(chr(0x4E00 + 37 * n % 2000) for n in range(40))
    assert len(shingles([signs])) == 40 - WORDS + 1
    assert len(shingles(["one two three"])) == 0
    assert shingles(["a " * 50]).size == 1


def test_the_same_text_is_found_in_any_of_its_unicode_forms() -> None:
    text = "Où l'élève a-t-il posé le très gros gâteau à la crème brûlée préparé hier"
    composed, split = (shingles([unicodedata.normalize(form, text)]) for form in ("NFC", "NFD"))
    assert composed.size > 0
    assert composed.tolist() == split.tolist()


def test_findings_count_rows_of_either_side_with_their_ids(screen: Screen) -> None:
    findings = Findings({"heldout": 20, "bench": 20})
    train = [row(100), row(3), row(101, images=(png(21),)), row(102, images=(png(21), png(4)))]
    noted = [findings.note(one, screen.check(one)) for one in train]
    assert [len(found) for found in noted] == [0, 1, 1, 2]
    figures = findings.figures()
    assert figures["rows"] == 3
    bench = figures["sets"]["bench"]
    assert (bench["rows"], bench["givenAway"], bench["byImage"], bench["byText"]) == (20, 1, 2, 0)
    assert bench["examples"][0] == {
        "row": "row 101",
        "set": "bench",
        "item": "item 21",
        "shared": "image",
        "likeness": 1.0,
    }
    assert contamination_warnings(figures, removed=True) == [
        "2 of 20 rows of heldout share an image or a text with 2 training rows, which were left "
        "out",
        "1 of 20 rows of bench share an image or a text with 2 training rows, which were left out",
    ]
    assert "with 2 chains, which stay" in contamination_warnings(figures, False, "chains")[1]
