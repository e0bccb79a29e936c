"""The package's version, read by the build and by what runs write down."""

__version__ = "0.2.0"
