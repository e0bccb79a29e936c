"""Runs the model. The only package, with those above it, that imports torch; Unsloth comes first."""
