"""The files that runs leave on the disk: their names, writers and readers."""
