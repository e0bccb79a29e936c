"""The package's version, read by the build and by what runs write down."""

__version__ = "0.1.0.dev0"
