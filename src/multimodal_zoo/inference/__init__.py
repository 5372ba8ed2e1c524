"""Running models that are too large for one device, or for their full precision."""
