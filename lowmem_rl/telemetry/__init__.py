"""What a training measures and tells while it runs."""
