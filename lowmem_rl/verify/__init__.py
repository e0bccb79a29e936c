"""Are two answers equal: extraction, then exact comparison, then symbolic algebra in killable workers.

`verify(given, gold)` is the verdict, `check_gold(gold)` the question whether an answer can be a gold one.
"""

from lowmem_rl.verify.api import check_gold, verify

__all__ = ["check_gold", "verify"]
