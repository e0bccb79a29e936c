"""Handing the result on, with proof. `export.export` is the way in."""
