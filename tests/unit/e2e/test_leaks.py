# SPDX-License-Identifier: Apache-2.0
import base64

from tests.e2e.leaks import leaks

SECRETS = {"the key": "planted-key-0123", "the token": "planted-token-4567"}


def test_a_secret_is_found_plain_and_in_base64_and_told_by_its_name_alone():
    encoded = base64.b64encode(b"planted-token-4567")
    texts = [
        ("log of a", b"nothing here"),
        ("log of b", b"url?key=planted-key-0123&x"),
        ("Secret c", b'{"token": "' + encoded + b'"}'),
    ]
    assert leaks(SECRETS, texts) == ["log of b: the key", "Secret c: the token"]
