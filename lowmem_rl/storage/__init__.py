"""What runs leave on the disk: the only place that knows file names."""
