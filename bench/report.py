"""Puts what was measured where it is read: on the terminal, and into a page between two marks."""

from __future__ import annotations

from pathlib import Path


def publish(text: str, page: Path | None, section: str) -> None:
    """Prints `text`; in `page` it replaces what stands between the marks of `section`."""
    print(text)
    if page is None:
        return
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    before, opened, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise SystemExit(f"{page} has no {begin} and {end}.")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")
