"""One training step of EVA02-B/16 on real captions, against open_clip: same weights, same batch, same loss."""

from __future__ import annotations

from clip_training_step import main

if __name__ == "__main__":
    main("eva_training_step", "eva_clip_b16", "EVA02-B-16")
