"""Are two answers equal: extraction, then exact comparison, then symbolic algebra in killable workers.

`verify(given, gold)` is the verdict, `late_verdicts()` counts those that took too long, and `check_gold(gold)` asks
whether an answer can be a gold one.
"""

from lowmem_rl.verify.api import check_gold, late_verdicts, verify

__all__ = ["check_gold", "late_verdicts", "verify"]
