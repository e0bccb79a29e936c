"""Writes the same run for more than one card: TRL and accelerate, or verl. `scale_out.scale_out` is the entry point."""
