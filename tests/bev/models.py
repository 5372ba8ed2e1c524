"""Small detectors, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.registry import build


def node(frames: int = 1, counts: Sequence[int] = (10, 8, 2), channels: int = 4) -> dict[str, Any]:
    """The configuration of a detector of 40 m x 40 m with two classes."""
    return {
        "type": "fast_bev",
        "frames": frames,
        "image_encoder": {"type": "convolution_maps", "channels": [4, 6, 8, 8]},
        "pyramid": {"type": "feature_pyramid", "in_channels": [4, 6, 8, 8], "channels": channels},
        "fusions": [{"type": "level_fusion", "level": 0, "in_channels": 4 * channels, "channels": channels}],
        "lift": {
            "type": "fast_ray",
            "grids": [
                {
                    "type": "voxel_grid",
                    "counts": list(counts),
                    "size": [40 / counts[0], 40 / counts[1], 2.0],
                    "centre": [0, 0, 0],
                }
            ],
        },
        "bev_encoder": {
            "type": "bev_encoder",
            "in_channels": counts[2] * frames * channels,
            "fused": 8,
            "width": 8,
            "depth": 1,
        },
        "head": {
            "type": "anchor_head",
            "in_channels": 8,
            "classes": ["car", "pedestrian"],
            "anchors": {
                "type": "anchor_grid",
                "ranges": [[-20, -20, -1.0, 20, 20, -1.0]],
                "sizes": [[2.0, 4.0, 1.5], [0.6, 0.6, 1.7]],
                "rotations": [0, 1.57],
            },
            "direction": {"type": "yaw_halves", "offset": 0.7854},
            "selection": {
                "type": "box_selection",
                "score_threshold": 0.0,
                "candidates": 40,
                "limit": 20,
                "suppressions": [{"type": "rotated_suppression", "threshold": 0.2}],
            },
        },
    }


def detector(frames: int = 1, **sizes: Any) -> FastBEV:
    """A detector with random weights, in evaluation mode."""
    model: FastBEV = build(node(frames, **sizes))
    return model.eval()
