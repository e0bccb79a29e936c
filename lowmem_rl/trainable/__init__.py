"""Which weights learn, and when."""
