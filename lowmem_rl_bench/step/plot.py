"""The ratios as a picture: one SVG that a page can show, drawn without a plotting library."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

LABELS = {
    "trl": "TRL, defaults",
    "trl_fair": "TRL, fair",
    "unsloth": "Unsloth, defaults",
    "unsloth_fair": "Unsloth, fair",
}
COLOURS = {"skewed": "#2563eb", "equal": "#94a3b8"}
MEANINGS = {"skewed": "skewed lengths, dead groups", "equal": "equal lengths, none dead: the worst case"}
WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 760, 170, 70, 86, 18, 22
TEXT = 'font-family="system-ui, sans-serif" font-size="13" fill="#0f172a"'


def draw(record: Mapping[str, Any]) -> str:
    """Returns the picture of a record's replays: bars are medians over rounds, lines their 95 % intervals."""
    panels = [(name, found) for name, found in record["replay"].items()]
    arms = list(record["ratios"])
    scale = _scale([found for _, sets in panels for found in sets.values()])
    height = TOP + len(panels) * (_panel_height(panels[0][1], arms) + 40)
    parts: list[str] = []
    top = TOP
    for name, sets in panels:
        title = {"preset": f"{record['preset']} as shipped", "fp32": "float32, not quantised"}[name]
        parts += _panel(title, sets, arms, scale, top)
        top += _panel_height(sets, arms) + 40
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(20, 30, "One GRPO step: how many times as long as lowmem-rl", size=17, bold=True),
        *_legend(),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _legend() -> Iterator[str]:
    for number, (name, colour) in enumerate(COLOURS.items()):
        x = 20 + 250 * number
        yield f'<rect x="{x}" y="46" width="12" height="12" rx="2" fill="{colour}"/>'
        yield _text(x + 18, 57, MEANINGS[name])


def _panel_height(sets: Mapping[str, Any], arms: Sequence[str]) -> int:
    return 26 + len(arms) * (len(sets) * BAR + GAP)


def _panel(title: str, sets: Mapping[str, Any], arms: Sequence[str], scale: float, top: int) -> Iterator[str]:
    bottom = top + _panel_height(sets, arms)
    yield _text(20, top + 12, title, bold=True)
    for tick in range(int((WIDTH - LEFT - RIGHT) / scale) + 1):
        x = LEFT + tick * scale
        yield f'<line x1="{x:.1f}" y1="{top + 22}" x2="{x:.1f}" y2="{bottom}" stroke="{_ink(tick)}"/>'
        yield _text(x, bottom + 15, f"{tick}×", anchor="middle", size=11)
    y = top + 30
    for arm in arms:
        yield _text(LEFT - 12, y + len(sets) * BAR / 2 + 4, LABELS.get(arm, arm), anchor="end")
        for kind, found in sets.items():
            yield from _bar(found["ratios"][arm][found["clock"]], COLOURS[kind], scale, y)
            y += BAR
        y += GAP


def _bar(ratio: Mapping[str, float], colour: str, scale: float, y: float) -> Iterator[str]:
    middle = y + BAR / 2
    low, high = LEFT + ratio["low"] * scale, LEFT + ratio["high"] * scale
    width = ratio["median"] * scale
    yield f'<rect x="{LEFT}" y="{y + 1}" width="{width:.1f}" height="{BAR - 3}" rx="2" fill="{colour}"/>'
    yield f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#0f172a" stroke-width="2"/>'
    yield _text(max(high, LEFT + width) + 8, middle + 4, f"{ratio['median']:.2f}×")


def _scale(sets: Sequence[Mapping[str, Any]]) -> float:
    """Returns the pixels of a ratio of one."""
    highest = max(ratio[found["clock"]]["high"] for found in sets for ratio in found["ratios"].values())
    return (WIDTH - LEFT - RIGHT) / max(highest, 1.0)


def _ink(tick: int) -> str:
    return "#0f172a" if tick == 1 else "#e2e8f0"  # ours stands at one


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, bold: bool = False) -> str:
    style = TEXT.replace('"13"', f'"{size}"') + (' font-weight="600"' if bold else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(text)}</text>'
