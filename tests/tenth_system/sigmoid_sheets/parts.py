"""What the entry point names: importing it registers every part."""

from sigmoid_sheets import contact_sheet, conv_mixer, sigmoid_loss

__all__ = ["contact_sheet", "conv_mixer", "sigmoid_loss"]
