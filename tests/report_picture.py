"""Takes the picture of a report for the docs, light and dark, in a system Chromium.

.venv/bin/python tests/report_picture.py [PUBLISHED STUDY]
"""

import sys
import tempfile
from pathlib import Path

from browsing import CHROMIUM, FLAGS
from playwright.sync_api import sync_playwright

from hkrun.report import publishing, render_report
from hkrun.store import open_store

REPOSITORY = Path(__file__).parents[1]
IMAGES = REPOSITORY / "docs" / "images"


def main() -> None:
    """See the module."""
    study = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "results" / "stability-digits"
    files = render_report(publishing.summarise_study(open_store(str(study))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "report.html"
        page_file.write_bytes(files["report.html"])
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": 1280, "height": 860}, color_scheme="dark" if scheme == "dark" else "light"
            )
            page.goto(page_file.as_uri())
            page.screenshot(path=IMAGES / f"report-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()
