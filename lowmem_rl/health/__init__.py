"""Is it learning: from what a run wrote to named findings, each with its steps, its confidence and one fix."""
