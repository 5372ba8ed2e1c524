"""Checks of fused captions, one idea each."""
