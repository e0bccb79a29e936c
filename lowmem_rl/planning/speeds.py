"""What each card of `hardware.CARDS` computes and moves at best, by the same keys."""

from dataclasses import dataclass

from lowmem_rl.models.hardware import Card
from lowmem_rl.units import GB

TFLOP = 10**12


@dataclass(frozen=True, slots=True)
class Speed:
    """Peak rates: bytes to and from the card's memory, and dense 16-bit tensor work with 32-bit sums, a second."""

    bytes_per_s: float
    flops_per_s: float
    source: str


def _row(gigabytes: float, teraflops: float, source: str) -> Speed:
    return Speed(gigabytes * GB, teraflops * TFLOP, source)


_TRL = "trl 1.15 trainer/utils.py, table of peak FLOP/s"

# Data sheets print tensor rates with sparsity: half of that is dense. GeForce cards sum in 32 bit at half rate.
SPEEDS: dict[str, Speed] = {
    "5060": _row(448, 38.4, "NVIDIA data sheet; the 5090's tensor rate by cores and clock"),
    "4060": _row(272, 30.2, "NVIDIA data sheet; the 4090's tensor rate by cores and clock"),
    "5070": _row(672, 61.7, "NVIDIA data sheet; the 5090's tensor rate by cores and clock"),
    "4070": _row(504, 58.3, "NVIDIA data sheet; the 4090's tensor rate by cores and clock"),
    "3060": _row(360, 25.5, "NVIDIA data sheet; the 3090's tensor rate by cores and clock"),
    "2060-12": _row(336, 28.7, "NVIDIA Turing white paper: 25.8 of the 6 GB one with 32-bit sums, by cores and clock"),
    "t4": _row(320, 65, f"NVIDIA T4 data sheet; {_TRL}"),
    "a4000": _row(448, 76.7, "NVIDIA RTX A4000 data sheet: 153.4 sparse"),
    "l4": _row(300, 121, f"NVIDIA L4 data sheet: 242 sparse; {_TRL}"),
    "a10g": _row(600, 70, "A10G's own tensor rate; 125, as often given, is the A10's"),
    "a5000": _row(768, 111.1, "NVIDIA RTX A5000 data sheet: 222.2 sparse"),
    "3090": _row(936, 71, "NVIDIA GA102 white paper: 71 dense with 32-bit sums"),
    "4090": _row(1008, 165.2, "NVIDIA Ada white paper: 165.2 dense with 32-bit sums"),
    "5090": _row(1792, 209.5, "NVIDIA RTX Blackwell white paper: 209.5 dense with 32-bit sums"),
    "a100-40": _row(1555, 312, f"NVIDIA A100 data sheet; {_TRL}"),
    "a40": _row(696, 149.7, "NVIDIA A40 data sheet: 299.4 sparse"),
    "a6000": _row(768, 154.8, f"NVIDIA RTX A6000 data sheet: 309.7 sparse; {_TRL}"),
    "h100": _row(2000, 756, f"the PCIe card, the slower one; {_TRL}"),
    "a100-80": _row(1935, 312, f"the PCIe card, the slower one; {_TRL}"),
    "gb10": _row(273, 125, "NVIDIA DGX Spark data sheet: 1000 in sparse FP4, an eighth of that dense in 16 bit"),
    "h200": _row(4800, 989, f"NVIDIA H200 data sheet; {_TRL}"),
}

TYPICAL = _row(768, 100, "an unknown card: orders settings by time, never shown as seconds")


def speed_of(card: Card | None) -> Speed | None:
    """Returns a card's speed, or None if the table lacks it."""
    return None if card is None else SPEEDS.get(card.key)
