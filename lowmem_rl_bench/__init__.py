"""Ours against others, measured side by side on the same input."""
