"""Models and cards: what is known of them without loading one."""
