# SPDX-License-Identifier: Apache-2.0
"""The page as a person uses it: in Chromium, against the front and a real vLLM server."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.chromium import chromium
from tests.integration.rollout.reference import picture
from tests.integration.scoring.conftest import AUTHORISED, CLIENT_TOKEN, REASONING

pytestmark = pytest.mark.timeout(600)

HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
DROP = """
const [zone, bytes] = arguments;
const data = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([data], "picture.png", { type: "image/png" }));
zone.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def text(browser: Chrome, name: str) -> str:
    return browser.find_element(By.ID, name).text


def fill(browser: Chrome, **fields: str) -> None:
    for name, value in fields.items():
        browser.find_element(By.ID, name).send_keys(value)


def compare(browser: Chrome) -> None:
    """Presses the button and waits for the answer, or for what is wrong."""
    browser.find_element(By.ID, "compare").click()
    WebDriverWait(browser, 60).until(
        lambda page: text(page, "error") or page.find_element(By.ID, "result").is_displayed()
    )


def test_a_person_drops_an_image_and_sees_verdict_reasoning_and_probabilities(
    browser: Chrome, front: str
):
    browser.get(f"{front}/")
    title = browser.title
    fill(browser, token=CLIENT_TOKEN, question="What is in it?", answer1="a cat", answer2=HOSTILE)
    zone = browser.find_element(By.ID, "drop")
    browser.execute_script(DROP, zone, base64.b64encode(picture(200)).decode())
    preview = browser.find_element(By.ID, "preview")
    WebDriverWait(browser, 10).until(lambda _: preview.get_property("naturalWidth") == 56)
    compare(browser)
    assert text(browser, "error") == ""

    asked = {
        "question": "What is in it?",
        "answers": ["a cat", HOSTILE],
        "images": [base64.b64encode(picture(200)).decode()],
    }
    told = httpx.post(f"{front}/v1/score", json=asked, headers=AUTHORISED, timeout=60).json()
    (pair,) = told["comparisons"]
    rows = [
        [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        for row in browser.find_elements(By.CSS_SELECTOR, "#orders tr")
    ]
    shown = [f"{100 * o['probability']:.1f} %" for o in (*pair["orders"], pair)]
    assert [row[:3] for row in rows] == [
        ["Answer 1", "Answer 1", shown[0]],
        ["Answer 2", "Answer 2", shown[1]],
        ["Both", f"Answer {pair['verdict']}" if pair["verdict"] else "none", shown[2]],
    ]
    if pair["verdict"] is not None:
        assert text(browser, "verdict").startswith(f"Answer {pair['verdict']} is better")
    # Markup that the model wrote is there as text, and is no part of the page.
    thoughts = [block.text for block in browser.find_elements(By.TAG_NAME, "pre")]
    assert thoughts == [REASONING] * 2
    assert browser.find_elements(By.CSS_SELECTOR, "#result img, #result script, #result b") == []
    assert browser.title == title


def test_a_wrong_token_and_bad_input_are_said_in_words(browser: Chrome, front: str):
    browser.get(f"{front}/")
    fill(browser, token="wrong", question="q", answer1="1", answer2="2")
    compare(browser)
    assert "token is needed" in text(browser, "error")
    browser.get(f"{front}/")
    fill(browser, token=CLIENT_TOKEN, question="q", answer1="1")
    compare(browser)
    assert "answers.1" in text(browser, "error")


def test_a_file_that_is_chosen_is_sent_and_one_that_is_no_image_is_not(
    browser: Chrome, front: str, tmp_path: Path
):
    browser.get(f"{front}/")
    image, other = tmp_path / "image.png", tmp_path / "notes.txt"
    image.write_bytes(picture(20))
    other.write_text("no image")
    chooser = browser.find_element(By.ID, "file")
    chooser.send_keys(str(other))
    assert "no PNG, JPEG or WebP" in text(browser, "error")
    chooser.send_keys(str(image))
    assert text(browser, "error") == ""
    assert text(browser, "hint") == "image.png"


def test_the_page_may_run_nothing_but_its_own_script(browser: Chrome, front: str):
    browser.get(f"{front}/")
    added = (
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 2\">');"
        "return fetch('http://127.0.0.2:9/').then(() => 'reached', (e) => e.name);"
    )
    assert browser.execute_script(added) == "TypeError"
    assert browser.execute_script("return window.ran === undefined")
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert any("Content Security Policy" in message for message in refused)
