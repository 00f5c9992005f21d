# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium, driven by Selenium; its packages are installed where they are missing."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.cluster.preflight import install_packages

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """A browser without a window, which ends with the context.

    Args:
        profile: folder for all that it keeps.
    """
    install_packages(PACKAGES)
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (
        "--headless=new",
        f"--user-data-dir={profile}",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
        # As root a sandbox cannot be made; the page comes from this very test.
        *(("--no-sandbox",) if os.geteuid() == 0 else ()),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()
