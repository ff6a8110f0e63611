"""The pictures of docs/ui.md: Prefect's UI after an extraction and a sweep of Weizmann, in headless Chromium.

    python docs/screenshots.py        # four or five minutes on 2 cores

Needs Weizmann below $DYNAPROP_DATA, and Chromium with its driver. Two videos are added that nobody can use as they are.
Everything else is real: `dynaprop serve` on a free port, `prefect deployment run`, and the pages that they lead to.
Fails where a page asks anybody but that server, or misses something.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1400, 860
MISSING = ("/favicon.ico", "/ico/undefined.svg")  # what Prefect's own pages ask for in vain


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dynaprop-") as scratch:
        environment = prepare(Path(scratch))
        with (
            served(environment) as (api, environment),
            browser(Path(scratch) / "chromium") as window,
        ):

            def take(name: str, path: str, expected: str, tab: str = "", *, height: int) -> None:
                show(window, api.removesuffix("/api") + path, expected, tab, height)
                save(window, HERE / f"ui-{name}.png")
                complain(window, api)

            with running("extract-features", environment):
                take("progress", half_way(api), " left", height=480)
            with running("evaluate-sweep", environment):
                pass
            for name, path, expected, tab, height in pages(api):
                take(name, path, expected, tab, height=height)


def prepare(scratch: Path) -> dict[str, str]:
    """A copy of Weizmann with one file that is no video and one that was cut off; the environment of all processes."""
    root = scratch / "data" / "weizmann"
    shutil.copytree(Path(os.environ.get("DYNAPROP_DATA", "data")) / "weizmann", root, copy_function=shutil.copyfile)
    for folder in (root, *filter(Path.is_dir, root.iterdir())):
        folder.chmod(0o755)
    whole = (root / "walk" / "daria_walk.avi").read_bytes()
    (root / "walk" / "zoe_walk.avi").write_bytes(whole[: len(whole) * 7 // 10])
    (root / "run" / "zoe_run.avi").write_text("the camera was off\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DYNAPROP_"))}
    folders = {"PREFECT_HOME": "prefect", "DYNAPROP_HOME": "home", "DYNAPROP_DATA": "data"}
    path = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **{name: str(scratch / folder) for name, folder in folders.items()}}


@contextmanager
def served(environment: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """`dynaprop serve` on a free port: its API's URL, and the environment that names it."""
    command = [sys.executable, "-m", "dynaprop.flows.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = ""
            while "transcode/local" not in told:
                line = process.stdout.readline()
                assert line, told
                told += line
            found = re.search(r"PREFECT_API_URL=(\S+)", told)
            assert found is not None
            while len(rows_of(found[1], "deployments")) < told.count("/local"):  # they are made after they are told
                time.sleep(0.2)
            yield found[1], {**environment, "PREFECT_API_URL": found[1]}
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def running(flow: str, environment: dict[str, str]) -> Iterator[None]:
    """A run of a deployment, from before the body until it is completed."""
    command = [
        sys.executable,
        "-m",
        "prefect",
        "deployment",
        "run",
        f"{flow}/local",
        "-p",
        "dataset=weizmann",
        "--watch",
    ]
    with subprocess.Popen(command, env=environment) as process:
        yield
    if process.returncode:
        raise SystemExit(f"{flow} failed")


def half_way(api: str) -> str:
    """Wait until half of the extraction is done; the path of the artifact that says so."""
    while True:
        for one in rows_of(api, "artifacts"):
            if one["key"] == "weizmann-lite-extraction" and float(one["data"]) > 50:
                return f"/artifacts/artifact/{one['id']}"
        time.sleep(1)


def rows_of(api: str, what: str, **filters: Any) -> list[dict[str, Any]]:
    reply = httpx.post(f"{api}/{what}/filter", json=filters, timeout=60).raise_for_status()
    rows: list[dict[str, Any]] = reply.json()
    return rows


def pages(api: str) -> list[tuple[str, str, str, str, int]]:
    """Name, path, a text that must appear, the tab to open if any, and the height of the picture."""

    of_flow = {"flows": {"name": {"any_": ["extract-features"]}}}
    (deployment,), (finished,) = rows_of(api, "deployments", **of_flow), rows_of(api, "flow_runs", **of_flow)
    artifacts = {one["key"]: f"/artifacts/artifact/{one['id']}" for one in rows_of(api, "artifacts")}
    page = f"/runs/flow-run/{finished['id']}"
    return [
        ("deployments", "/deployments", "evaluate-sweep", "", 600),
        ("form", f"/deployments/deployment/{deployment['id']}/run", "retry_failed", "", HEIGHT),
        ("run", page, "walk/zoe_walk.avi", "", 1100),
        ("tasks", page, "extract shard 0001 (10 videos)", "Task Runs", HEIGHT),
        ("artifacts", "/artifacts", "weizmann-lite-failures", "", 600),
        ("failures", artifacts["weizmann-lite-failures"], "run/zoe_run.avi", "", 480),
        ("results", artifacts["weizmann-lite-default-results"], "Dynamic-STE", "", HEIGHT),
        ("accuracy-cost", artifacts["weizmann-lite-default-accuracy-cost"], "Measured here", "", HEIGHT),
    ]


@contextmanager
def browser(profile: Path) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--hide-scrollbars")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield window
    finally:
        window.quit()


def show(window: WebDriver, url: str, expected: str, tab: str, height: int) -> None:
    metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    window.get(url)
    wait = WebDriverWait(window, 30)
    if tab:
        wait.until(lambda _: window.find_elements(By.XPATH, f"//*[normalize-space()='{tab}']"))[-1].click()
    wait.until(lambda _: expected in window.find_element(By.TAG_NAME, "body").text)
    time.sleep(3)  # the picture of the run is drawn step by step


def save(window: WebDriver, path: Path) -> None:
    """As a PNG of 256 colours, which is a third of the size."""
    picture = Image.open(io.BytesIO(window.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path.relative_to(HERE.parent), picture.size, f"{path.stat().st_size / 1000:.0f} kB")


def complain(window: WebDriver, api: str) -> None:
    """Fail where the page reported an error or asked somebody else."""
    errors = [entry["message"] for entry in window.get_log("browser") if entry["level"] == "SEVERE"]
    if bad := [message for message in errors if not any(name in message for name in MISSING)]:
        raise SystemExit(f"the page reports: {bad[0]}")
    messages = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    own = (api.removesuffix("api"), "data:", "blob:", "chrome")
    if strange := [url for url in asked if not url.startswith(own)]:
        raise SystemExit(f"the page asks {strange[0]}")


if __name__ == "__main__":
    main()
