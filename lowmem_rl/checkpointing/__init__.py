"""Saving a training between two steps, resuming it, and going back."""
