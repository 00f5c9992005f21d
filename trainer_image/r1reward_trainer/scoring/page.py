# SPDX-License-Identifier: Apache-2.0
"""The page for people: one file, which may run its own script, use its own style and talk to its
own server, and nothing else."""

import base64
import hashlib
import re
from importlib import resources


def _source(html: str, tag: str) -> str:
    """The one inline block of a tag, as a source of a Content-Security-Policy (level 3)."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def content_security_policy(html: str) -> str:
    """The policy of a page with one script and one style."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_source(html, 'script')}",
            f"style-src {_source(html, 'style')}",
            "img-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


PAGE = resources.files("r1reward_trainer.scoring").joinpath("page.html").read_text("utf-8")
CONTENT_SECURITY_POLICY = content_security_policy(PAGE)
