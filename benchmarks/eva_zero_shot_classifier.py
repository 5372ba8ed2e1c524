"""Class vectors from the 80 ImageNet prompts with the text tower of EVA02-B/16, against open_clip: same weights."""

from __future__ import annotations

from zero_shot_classifier import main

if __name__ == "__main__":
    main("eva_zero_shot_classifier", "eva_clip_b16", "EVA02-B-16")
