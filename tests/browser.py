"""A headless Chromium, and a page in it, for tests of pages."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PATIENCE_S = 60

CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = (e) => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; }
  return [255, 255, 255]; };
const out = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || !e.getClientRects().length) continue;
  const style = getComputedStyle(e);
  const [a, b] = [light(parse(e.namespaceURI.endsWith("svg") ? style.fill : style.color)),
    light(ground(e))].sort((x, y) => y - x);
  out.push([(a + 0.05) / (b + 0.05), walk.currentNode.textContent]);
}
return out;
"""
"""Returns the contrast of each piece of text against what is behind it, and the text."""


def until(found: Callable[[], Any]) -> Any:
    """Return what is found once it is something: there is no event in another process."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := found()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.05)
    return result


def browser() -> "Chrome":
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("chromium and chromedriver are not on PATH, and CI must run these tests")
        pytest.skip("chromium and chromedriver are not on PATH")
    options = ChromeOptions()
    options.binary_location = program
    for word in (
        "headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-quic", "disable-sync",
        "disable-background-networking", "disable-component-update", "disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="module")
def chromium() -> Iterator["Chrome"]:
    """Return a browser."""
    found = browser()
    yield found
    found.quit()


class Seen:
    """A page in the browser."""

    def __init__(self, chromium: "Chrome", url: str) -> None:
        self.chromium = chromium
        self.url = url

    def __call__(self, script: str) -> Any:
        return self.chromium.execute_script(script)

    def show(
        self, path: str = "", *, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> None:
        """Load anew, and return when it is drawn."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.chromium.get("about:blank")
        self.chromium.get(self.url + path)
        self.wait("document.body.dataset.ready")

    def leave(self) -> None:
        """Ask no more, and forget what the browser said of it."""
        self.chromium.get("about:blank")
        self.chromium.get_log("browser")

    def wait(self, script: str) -> Any:
        return until(lambda: self(f"return {script}"))

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.chromium).send_keys(key).perform()
