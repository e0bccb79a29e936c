"""One GRPO step in the order of time (`step`), and the hooks that take part in it."""
