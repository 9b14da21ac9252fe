"""How a page looks: kinds of browser, pictures, and axe-core, which finds nothing."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from playwright.async_api import Page

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
DESKTOP = {"width": 1180, "height": 760}
PHONE = {"width": 390, "height": 780}
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "has_touch": True, "device_scale_factor": 1.5},
    "phone-dark": {"viewport": PHONE, "has_touch": True, "color_scheme": "dark"},
}


async def check(page: Page, picture: Path) -> None:
    """Take a picture; axe-core must find nothing."""
    animations = "document.getAnimations().forEach((each) => each.finish?.())"
    await page.evaluate(f"try {{ {animations} }} catch {{}}")
    await page.screenshot(path=picture)
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    assert found["violations"] == [], json.dumps(found["violations"], indent=1)
    assert found["passes"]
