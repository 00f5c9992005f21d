# SPDX-License-Identifier: Apache-2.0
"""The page: everything escaped, nothing loaded, nothing run, and readable by its structure."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from PIL import Image

from r1reward_trainer.evaluation.report.build import LONGEST_TEXT, render, visible
from r1reward_trainer.evaluation.report.curves import curves, smoothed
from r1reward_trainer.evaluation.report.document import Report
from r1reward_trainer.evaluation.report.pictures import data_uri
from r1reward_trainer.evaluation.report.transcripts import EACH, choose
from r1reward_trainer.method.verdict import format_ok
from tests.unit.evaluation.builders import predictions, right, row, set_row, table
from tests.unit.evaluation.reports import MODELS, metrics_jsonl, pictures, png, report, three_models

HOSTILE = '</pre><script>alert(1)</script><img src=x onerror="a()">{{ 7*7 }}\u202eevil\x00&amp;'
GIVEN = [row(i, images=(png(),)) for i in range(30)]
SAID = three_models(GIVEN)


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def plain() -> tuple[Report, str]:
    shown = report(SAID, GIVEN)
    return shown, render(shown, pictures(shown, GIVEN))


@pytest.fixture(scope="module")
def hostile() -> tuple[str, Page]:
    """Every text that comes from outside is hostile, and images are no images."""
    given = [
        row(
            i,
            id=HOSTILE + str(i),
            question=HOSTILE,
            answer1=HOSTILE,
            answer2=HOSTILE,
            source=HOSTILE + str(i % 2),
            images=(b"<svg onload=alert(1)>", png()),
        )
        for i in range(30)
    ]
    mine = [set_row(i, item=HOSTILE, category=HOSTILE) for i in range(4)]
    said = pa.concat_tables([three_models(given), three_models(mine, "mine")])
    shown = report(said, given, {"mine": None})
    changed = shown.model_copy(
        update={
            "base_model": HOSTILE,
            "spec": {HOSTILE: HOSTILE},
            "transcripts": [t.model_copy(update={"response": HOSTILE}) for t in shown.transcripts],
        }
    )
    html = render(changed, pictures(changed, given))
    return html, Page(html)


def test_no_tag_or_attribute_comes_out_of_untrusted_text(hostile, plain):
    allowed = {tag for tag, _ in Page(plain[1]).tags} | {"span"}
    tags = hostile[1].tags
    assert {tag for tag, _ in tags} <= allowed - {"script"}
    assert not [a for _, attrs in tags for a in attrs if a.startswith("on")]
    assert "<script" not in hostile[0]


def test_untrusted_text_is_shown_as_it_is_with_invisible_characters_spelt_out(hostile):
    html, page = hostile
    seen = (
        '</pre><script>alert(1)</script><img src=x onerror="a()">{{ 7*7 }}\\u202eevil\\u0000&amp;'
    )
    assert page.text.count(seen) > 4 * EACH
    assert "\u202e" not in html
    assert "\x00" not in html


def test_bytes_that_are_no_image_are_named_and_not_embedded(hostile):
    html, page = hostile
    samples = [attrs for tag, attrs in page.tags if tag == "article"]
    assert page.text.count("Image 1 cannot be shown.") == len(samples) > EACH
    assert base64.b64encode(b"<svg onload").decode()[:12] not in html
    assert data_uri(b"") is None
    assert data_uri(png()[:40]) is None


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_the_page_refers_to_nothing_outside(which, request):
    html = request.getfixturevalue(which)
    page = Page(html[1]) if which == "plain" else html[1]
    sources = [a[name] for _, a in page.tags for name in ("src", "href", "srcset") if name in a]
    assert sources
    assert all(re.match(r"data:image/(png|jpeg|svg\+xml);base64,", s or "") for s in sources)
    assert not {"link", "script", "iframe", "object", "form", "a"} & {t for t, _ in page.tags}
    for source in sources:
        kind, _, data = (source or "").partition(";base64,")
        if kind.endswith("svg+xml"):
            svg = base64.b64decode(data)
            assert b"<script" not in svg
            assert not re.findall(rb'(?:href|src)="(?!#)', svg)


def test_the_policy_allows_this_style_sheet_and_inline_images_alone(plain):
    html = plain[1]
    css = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = next(
        attrs["content"]
        for tag, attrs in Page(html).tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert not [a for _, attrs in Page(html).tags for a in attrs if a == "style"]


def test_equal_reports_are_equal_pages(plain):
    shown, html = plain
    assert render(shown, pictures(shown, GIVEN)) == html


def test_it_shows_charts_samples_and_lineage(plain):
    page = Page(plain[1])
    for heading in (
        "Accuracy on held-out rows",
        "Reward over RL steps",
        "Response length over RL steps",
        "SFT loss",
    ):
        assert heading in page.text
    alt = [attrs["alt"] or "" for tag, attrs in page.tags if tag == "img"]
    assert all(alt)
    assert any("rl 0.9" in text for text in alt)
    assert page.text.count("Wrong · row") + page.text.count("Right · row") >= EACH + 1
    assert "sha256:" + "7" * 64 in page.text
    assert "5 MiB" in page.text


def test_each_answer_stands_beside_why_it_counts_and_which_rule_its_form_breaks(plain):
    shown, html = plain
    text = Page(html).text
    right = [t.correct for t in shown.transcripts]
    assert text.count("Result: the verdict is the gold one") == right.count(True) > 0
    well_formed = "form: <think>…</think><answer>…</answer> and nothing else"
    formed = [format_ok(t.response) for t in shown.transcripts]
    assert text.count(well_formed) == formed.count(True) > 0

    sentence = "Response 1, because I say so"
    said = SAID.set_column(
        SAID.schema.get_field_index("response"), "response", pa.array([sentence] * len(SAID))
    )
    verdicts = pa.nulls(len(said), SAID.schema.field("verdict").type)
    said = said.set_column(said.schema.get_field_index("verdict"), "verdict", verdicts)
    broken = report(SAID, GIVEN, transcripts=choose(said, GIVEN, MODELS, 0))
    text = Page(render(broken, pictures(broken, GIVEN))).text
    assert text.count("Result: no <answer> · form: no <think>") == len(broken.transcripts) > 0


def test_a_report_of_the_base_model_alone_has_no_gains_or_training_curves():
    shown = report(SAID, GIVEN)
    alone = shown.model_copy(
        update={"models": {"base": shown.models["base"]}, "gains": [], "curves": []}
    )
    page = Page(render(alone, pictures(alone, GIVEN)))
    assert "Gain over" not in page.text
    assert "Reward over RL steps" not in page.text


def test_a_metric_repeated_after_a_resume_counts_once_and_a_cut_line_not_at_all():
    first, again = metrics_jsonl(3, loss=1.0), metrics_jsonl(3, loss=2.0).splitlines()[2]
    (curve,) = curves("sft", first + again + b'\n{"step": 4, "metr')
    assert curve.steps == [1, 2, 3]
    assert curve.values[-1] == pytest.approx(403.43, abs=0.01)


def test_long_curves_are_thinned_and_keep_their_end():
    (curve,) = curves("sft", metrics_jsonl(5000, loss=-0.001))
    assert len(curve.steps) <= 400
    assert curve.steps[-1] == 5000


def test_values_that_are_not_finite_are_left_out():
    assert curves("sft", b'{"step": 1, "metrics": {"loss": NaN}}\n') == []


def test_the_moving_average_is_centred_and_so_does_not_lag():
    assert smoothed([1.0, 2.0, 3.0, 4.0], 3) == [1.5, 2.0, 3.0, 3.5]


def test_long_texts_are_cut_and_say_so():
    assert visible("x" * (LONGEST_TEXT + 5)).endswith("x… (5 characters more)")
    assert visible("line\n\ttab ünï 数") == "line\n\ttab ünï 数"


@pytest.mark.parametrize(
    "unseen",
    [0x00, 0x0B, 0x0D, 0x85, 0xAD, 0x61C, 0x180E, 0x200B, 0x2028, 0x202E, 0x2066, 0xFEFF, 0xE0041],
)
def test_a_character_that_cannot_be_seen_or_turns_the_text_around_is_spelt_out(unseen: int):
    assert visible(f"a{chr(unseen)}b") == f"a\\u{unseen:04x}b"


def test_small_images_are_enlarged_and_large_ones_reduced():
    def size(image: bytes) -> tuple[int, int]:
        uri = data_uri(image)
        assert uri is not None
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size

    assert size(png(8)) == (96, 96)
    assert size(png(1000)) == (320, 320)


def test_the_page_says_how_much_is_open_beside_the_figures_that_left_out_votes_could_change() -> (
    None
):
    def wrong(position: int, order: str, sample: int) -> int:
        return 3 - (right(GIVEN)(position, order, sample) or 0)

    three_of_five = table(*(predictions(GIVEN, wrong, votes=3, model=m) for m in MODELS))
    shown = report(three_of_five, GIVEN)
    html = render(shown, pictures(shown, GIVEN))
    found = dict(re.findall(r'data-figure="rl/((?:weighted|any)@\d)">([^<]*)<', html))
    none_right = "0.000 [0.000, 0.000]"
    assert found == {
        "weighted@3": none_right,
        "any@3": none_right,
        "weighted@5": f"{none_right}, 1.000 open",
        "any@5": f"≥ {none_right}, 1.000 open",
    }
    assert "<dt>Open</dt>" in html
