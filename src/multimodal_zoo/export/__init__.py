"""Towers for other runtimes: ONNX graphs and torch programs, checked against eager mode when they are written."""
