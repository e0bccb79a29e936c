"""Is it learning: what a run wrote down -> named findings, each with its steps, its confidence and one cure."""
