"""A tenth system: pairs cut out of contact sheets, an image tower of convolutions, the sigmoid loss."""
