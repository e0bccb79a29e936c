"""What a training measures and reports while it runs."""
