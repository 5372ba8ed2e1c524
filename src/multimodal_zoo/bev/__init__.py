"""Perception in bird's-eye view: geometry of cameras, view transform, encoders, heads, boxes."""
