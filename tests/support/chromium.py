"""A page in a real browser, through the DevTools protocol."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


def look(page: Path | str, scripts: Sequence[str], sizes: Sequence[tuple[int, str]], folder: Path) -> Mapping[str, Any]:
    """Open a page, and look at it in several widths and colour schemes.

    Args:
        page: the file, or an address.
        scripts: JavaScript expressions, evaluated once.
        sizes: width and `light` or `dark`.
        folder: for the browser's profile; screenshots go to `WIDTH-SCHEME.png`.

    Returns:
        `values` of the scripts, `widths` (size → the document's width), `requests` (URLs), `complaints` (console, log).
    """
    profile = folder / "profile"
    with open(folder / "chromium.log", "w") as log:
        browser = subprocess.Popen([CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"], stdout=log, stderr=log)
    try:
        return asyncio.run(asyncio.wait_for(_look(page, scripts, sizes, folder, profile, browser), 300))
    finally:
        browser.kill()
        browser.wait()


SIZES = [(1280, "light"), (1280, "dark"), (375, "light"), (375, "dark")]
"""A desk and a telephone."""


def check_page(page: Path, scripts: Sequence[str], folder: Path) -> Sequence[Any]:
    """Look at a page of distill's in all `SIZES`: it asks nobody for anything, and fits the screen.

    Returns:
        The values of the scripts.
    """
    found = look(page, scripts, SIZES, folder)
    assert found["requests"] == [page.as_uri()] and found["complaints"] == []
    assert all(width <= size[0] for size, (width, _) in found["widths"].items()), "something is wider than the screen"
    assert len({colour for _, colour in found["widths"].values()}) == 2
    assert all((folder / f"{width}-{scheme}.png").stat().st_size > 10_000 for width, scheme in SIZES)
    return found["values"]


async def _look(page, scripts, sizes, folder, profile, browser) -> Mapping[str, Any]:
    import base64

    import aiohttp

    port = profile / "DevToolsActivePort"
    while not port.is_file() or not port.read_text().strip():
        if browser.poll() is not None:
            pytest.skip(f"Chromium does not start here: {(folder / 'chromium.log').read_text()[-500:]}")
        await asyncio.sleep(0.05)
    number = port.read_text().split("\n")[0]
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://127.0.0.1:{number}/json/new?about:blank") as answer:
            url = (await answer.json())["webSocketDebuggerUrl"]
        async with session.ws_connect(url, max_msg_size=0) as socket:
            events: list[dict] = []
            count = 0

            async def read() -> dict:
                return json.loads((await socket.receive()).data)

            async def call(method: str, **params: Any) -> dict:
                nonlocal count
                count += 1
                await socket.send_json({"id": count, "method": method, "params": params})
                while (message := await read()).get("id") != count:
                    events.append(message)
                assert "error" not in message, message
                return message["result"]

            async def value(script: str) -> Any:
                words = {"expression": script, "returnByValue": True, "awaitPromise": True}
                try:
                    found = await call("Runtime.evaluate", **words)
                except AssertionError as error:
                    if "navigated" not in str(error):
                        raise
                    found = await call("Runtime.evaluate", **words)  # a script before this one led to another page
                return found["result"].get("value")

            for domain in ("Page", "Runtime", "Log", "Network"):
                await call(f"{domain}.enable")
            await call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
            while not any(event["method"] == "Page.loadEventFired" for event in events):
                events.append(await read())
            widths = {}
            for width, scheme in sizes:
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                await call("Emulation.setEmulatedMedia", features=features)
                metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
                await call("Emulation.setDeviceMetricsOverride", **metrics)
                widths[width, scheme] = await value(
                    "[document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]"
                )
                shot = await call("Page.captureScreenshot", captureBeyondViewport=True)
                (folder / f"{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
            values = [await value(script) for script in scripts]
    kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return {
        "values": values,
        "widths": widths,
        "requests": [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"],
        "complaints": [one["params"] for one in events if one["method"] in kinds],
    }
