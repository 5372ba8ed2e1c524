"""Modules whose import registers the parts of this room."""
