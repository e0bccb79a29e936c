"""Makes the pictures of the documents: what `profile` prints, and the head of a run's report.

.venv/bin/python scripts/docs_pictures.py           # the first
.venv/bin/python scripts/docs_pictures.py RUN       # both; RUN: a run of `train --preset tiny-cpu`; needs Chromium
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs/images"
PROFILE = ("profile", "--preset", "qwen7b-a6000")
LINES = 16
"""Of `profile`'s page: the verdict and the phases."""
PIXELS_A_POINT = 2


def draw(text: str, picture: Path) -> None:
    """Writes a PNG of a terminal that shows a text."""
    import matplotlib.pyplot as plt

    lines = text.splitlines()
    inches = max(map(len, lines)) * 0.0905 + 0.4, len(lines) * 0.21 + 0.35  # of DejaVu Sans Mono in 11 points
    figure = plt.figure(figsize=inches, facecolor="#16181d")
    figure.text(0.2 / inches[0], 0.5, text, color="#e6e6e6", family="DejaVu Sans Mono", size=11, va="center")
    figure.savefig(picture, dpi=72 * PIXELS_A_POINT)


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


def main(run: Path | None) -> None:
    """Makes the first, and with a run both."""
    IMAGES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "lowmem_rl", *PROFILE]
    wide = os.environ | {"COLUMNS": "100"}
    printed = subprocess.run(command, env=wide, check=True, capture_output=True, text=True).stdout.splitlines()[:LINES]
    draw("\n".join([f"$ lowmem-rl {' '.join(PROFILE)}", "", *printed]), IMAGES / "profile.png")
    if run:
        photograph((run / "report.html").resolve(), IMAGES / "report.png", 1200, 1150)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
