"""Headless Chromium for tests of the pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WEAK = """() => {
  const parse = c => { const [r, g, b, a = 1] = c.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const ground = e => {
    for (let at = e; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c[3] === 1) return c;
    }
    return [255, 255, 255, 1];
  };
  const shade = e => {
    let s = 1;
    for (let at = e; at; at = at.parentElement) s *= Number(getComputedStyle(at).opacity);
    return s;
  };
  const found = new Set();
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || ['SCRIPT', 'TITLE', 'title'].includes(e.tagName)) continue;
    if (e.closest('.sr, .skip, option')) continue;
    const style = getComputedStyle(e), back = ground(e);
    const ink = parse(e instanceof SVGElement ? style.fill : style.color);
    ink[3] *= shade(e);
    const [a, b] = [light(over(ink, back)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.add(`${e.tagName}.${e.getAttribute('class')} ${ratio.toFixed(2)}`);
  }
  return [...found];
}"""
"""Texts whose contrast is under 4.5 to 1 (WCAG 2.2, success criterion 1.4.3, level AA)."""


@contextmanager
def launched() -> Iterator[Any]:
    """A browser; the test is skipped without one, or fails where M3I_REQUIRE_BROWSER=1."""

    def without(reason: str) -> None:
        if os.environ.get("M3I_REQUIRE_BROWSER") == "1":
            pytest.fail(f"M3I_REQUIRE_BROWSER=1, but {reason}")
        pytest.skip(reason)

    path = os.environ.get("M3I_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        without("no Chromium was found (apt-get install chromium, or set M3I_CHROMIUM)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without("playwright is not installed")
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield instance
        instance.close()


def open_page(
    browser: Any, report: Path, width: int = 1400, scheme: str = "light", *, script: bool = True
) -> tuple[Any, list[str]]:
    """The opened page, and what the console and the network said."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: said.append(request.url) if request.url != report.as_uri() else None)
    page.goto(report.as_uri())
    page.wait_for_load_state("load")
    return page, said


def weak_texts(page: Any) -> list[str]:
    """Every visible text with too little contrast."""
    return list(page.evaluate(WEAK))
