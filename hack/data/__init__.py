"""Data sets for examples and tests, written out as image folders. Not part of the distribution."""
