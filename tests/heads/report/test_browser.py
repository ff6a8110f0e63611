"""The page in headless Chromium, the way a reader opens it: from a file, on a phone, in the dark, on paper."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver

from dynaprop.heads.report.page import make_report, write_report
from tests.heads.run_folder import TABLE3, write_run

ODD = ["<script>alert(1)</script>", "日本語", "w" * 300, "$x$", "a", "b"]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "made-up"
    missing = ["/a/very/long/path/" + "x" * 200, "<b>"]
    write_run(folder, experiments={"table3": TABLE3}, class_names=ODD, seeds=2, missing=missing)
    report = make_report(
        [folder],
        metrics={},
        pictures=lambda _dataset, _ids: {},
        command="dynaprop report " + "x" * 300,
        written=datetime(2026, 1, 2, tzinfo=UTC),
    )
    return write_report(report, folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[WebDriver]:
    """Chromium: $CHROMIUM, else the one on the PATH; its absence fails the test where $CI_REQUIRE_CHROMIUM is set."""
    binary = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        reason = "no Chromium and chromedriver: install them, or name Chromium with $CHROMIUM"
        pytest.fail(reason) if os.environ.get("CI_REQUIRE_CHROMIUM") else pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


def show(browser: WebDriver, page: Path, *, width: int, scheme: str = "light") -> None:
    browser.get_log("performance")
    browser.get_log("browser")
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


def test_it_loads_without_errors_and_asks_for_nothing(browser, page):
    show(browser, page, width=1200)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert browser.execute_script("return document.title") == "Accuracy and cost: made-up"
    pictures = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(pictures) >= 5
    assert all(complete and width > 0 for complete, width in pictures)


@pytest.mark.parametrize("width", [320, 375, 1200])
def test_only_tables_scroll_sideways(browser, page, width):
    show(browser, page, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    inner, outer = browser.execute_script(
        "const box = document.querySelector('.scroll'); return [box.scrollWidth, box.clientWidth]"
    )
    assert width > 400 or inner > outer


def test_light_and_dark_and_narrow_differ(browser, page):
    seen = set()
    for scheme, width in (("light", 1200), ("dark", 1200), ("light", 375), ("dark", 375)):
        show(browser, page, width=width, scheme=scheme)
        source = browser.execute_script("return document.querySelector('picture img').currentSrc")
        colours = browser.execute_script("s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
        ink, paper = (sum(map(int, colour.strip("rgb()").split(","))) for colour in colours)
        assert (ink < paper) == (scheme == "light")
        seen.add(source)
    assert len(seen) == 4


def test_it_prints_in_light_colours(browser, page):
    show(browser, page, width=1200, scheme="dark")
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 20_000
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
