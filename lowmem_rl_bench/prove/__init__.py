"""Proof that lowmem-rl works on this machine's card: checks, each in processes of its own, and a record of them.

`lowmem-rl prove` and tests/gpu run the same checks (`checks.CHECKS`). The record is a file that a stranger can send in:
`record` reads it as hostile, `replay` computes its prediction again.
"""
