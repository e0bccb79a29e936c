"""A run's settings: what they are, where each value comes from, presets."""
