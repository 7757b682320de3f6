# SPDX-License-Identifier: Apache-2.0
"""A page in Debian's chromium, driven by selenium: what it shows, what it fetched, what its console says.

The browser can reach no machine: every host name is unknown to it, so that a test never asks a server by mistake.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 1280, 900
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--host-resolver-rules=MAP ticket.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
"""Chromium as root needs --no-sandbox."""
OWN = ("file:", "data:", "about:", "chrome:", "devtools:")


def is_selenium_installed() -> bool:
    """Say whether selenium is there, which is no dependency of the other tests."""
    return importlib.util.find_spec("selenium") is not None


class Browser:
    """A chromium without a window."""

    def __enter__(self) -> Browser:  # noqa: PYI034 typing.Self came with Python 3.11
        from selenium import webdriver  # noqa: PLC0415 not there where these tests are skipped

        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for option in OPTIONS:
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        self.driver: Any = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def open(
        self, where: Path | str, *, width: int = WIDTH, dark: bool = False, script: bool = True, media: str = ""
    ) -> OpenedPage:
        """Open a file or an address: `width` pixels wide, light or dark, with or without JavaScript, or as printed."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        metrics = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)
        self.command("Emulation.setEmulatedMedia", media=media, features=features)
        self.command("Emulation.setScriptExecutionDisabled", value=not script)
        for log in ("performance", "browser"):
            self.driver.get_log(log)
        self.driver.get(where.as_uri() if isinstance(where, Path) else where)
        return OpenedPage(self)

    def command(self, name: str, **parameters: object) -> Any:
        """Run a command of the Chrome DevTools Protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)


class OpenedPage:
    """The page that the browser shows. `requests` and `console` have what was seen since it was opened."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.driver = browser.driver
        self.requests: list[str] = []
        self.console: list[str] = []

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page; return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """Return the first element that a CSS selector selects."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """Return all elements that a CSS selector selects."""
        return self.driver.find_elements("css selector", selector)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415 see above

        ActionChains(self.driver).send_keys(*keys).perform()

    def copied(self, what: str) -> str:
        """Press the button that copies the element with the id `what`; return what the clipboard has then."""
        self.find(f"[data-copy='{what}']").click()
        return self.pasted()

    def pasted(self) -> str:
        """Return what the clipboard has, pasted into another page, when the page has said that it is there."""
        from selenium.webdriver.common.keys import Keys  # noqa: PLC0415 see above
        from selenium.webdriver.support.wait import WebDriverWait  # noqa: PLC0415

        WebDriverWait(self.driver, 10).until(
            lambda _: self.find("#said").get_property("textContent").endswith("copied")
        )
        self.look()
        self.driver.get("data:text/html,<textarea autofocus></textarea>")
        area = self.find("textarea")
        area.send_keys(Keys.CONTROL, "v")
        return area.get_property("value")

    def look(self) -> None:
        """Take what the browser has logged so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.console += [entry["message"] for entry in self.driver.get_log("browser")]

    def check_nothing_went_wrong(self) -> None:
        """Check that the page asked for nothing but itself, and that the console is empty."""
        self.look()
        assert [url for url in self.requests if not url.startswith(OWN)] == []
        assert len([url for url in self.requests if url.startswith("file:")]) <= 1
        assert self.console == []
