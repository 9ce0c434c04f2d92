"""A real browser for tests and measurements of pages: Debian's chromium, without a screen."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
ABSENT = (
    "no chromium with its chromedriver and selenium here: "
    "apt-get install chromium chromium-driver, pip install -r requirements-dev.txt"
)


def find_browser() -> tuple[str, str] | None:
    """(chromium, chromedriver), None where one of them or selenium is missing."""
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    known = importlib.util.find_spec("selenium") is not None
    return (browser, driver) if browser and driver and known else None


@contextmanager
def open_browser(width: int = 1400, height: int = 1000, dark: bool = False) -> Iterator[Any]:
    """A selenium driver with a window of this many pixels inside; everything it asks is logged."""
    from selenium import webdriver

    found = find_browser()
    assert found, ABSENT
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    flags = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--disable-background-networking", "--no-first-run"]  # fmt: skip
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        flags.append("--no-sandbox")  # chromium has none for root
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(found[1]))
    try:
        resize(driver, width, height)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """Give the page a viewport of so many pixels, narrower than any window too."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def asked_for(driver: Any) -> list[str]:
    """Every address that the browser asked for since it was last looked at."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


def complaints(driver: Any) -> list[str]:
    """What stands in the browser's console: errors of a program, refusals of a policy."""
    return [entry["message"] for entry in driver.get_log("browser")]


def picture(driver: Any, path: Path, height: int | None = None) -> None:
    """A screenshot of the page from its top, `height` pixels of it or all."""
    width = driver.execute_script("return innerWidth")
    whole = driver.execute_script("return document.documentElement.scrollHeight")
    resize(driver, width, min(height or whole, whole))
    driver.save_screenshot(str(path))
