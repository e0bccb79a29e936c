"""Ours against others, measured on the same input."""
