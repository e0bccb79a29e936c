"""Makes the pictures of the documents: what `profile` prints, and the head of a run's report.

.venv/bin/python scripts/docs_pictures.py RUN       # RUN: a run of `train --preset tiny-cpu`; needs Chromium
"""

import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs/images"
PROFILE = ("profile", "--preset", "qwen7b-a6000")
LINES = 14
"""Of `profile`'s page: the verdict and the phases."""
TERMINAL = """<body style="margin:0;background:#16181d"><pre style="margin:0;padding:18px;color:#e6e6e6;
font:15px/1.35 'DejaVu Sans Mono',monospace">{}</pre></body>"""


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    """Writes a PNG of a page as Chromium shows it. Raises `CalledProcessError` if it cannot."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
    )


def main(run: Path) -> None:
    """Makes both."""
    IMAGES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "lowmem_rl", *PROFILE]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[:LINES]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "profile.html")
        text = "\n".join([f"$ lowmem-rl {' '.join(PROFILE)}", "", *printed])
        page.write_text(TERMINAL.format(escape(text)), "utf-8")
        photograph(page, IMAGES / "profile.png", 960, 370)
    photograph((run / "report.html").resolve(), IMAGES / "report.png", 1200, 1150)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
