"""Key frames of the synthetic scenes, which are drawn where they are missing."""

from __future__ import annotations

from multimodal_zoo.data.camera_reader import KeyFrames, nuscenes_scenes
from multimodal_zoo.data.scenes.generate import generate
from multimodal_zoo.data.scenes.settings import KEY_RATE, VERSION, Settings
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="synthetic_scenes")
def synthetic_scenes(
    folder: str,
    split: str,
    scenes: int = 24,
    frames: int = 20,
    width: int = 400,
    height: int = 225,
    seed: int = 0,
    rate: int = KEY_RATE,
) -> KeyFrames:
    """Key frames of drawn scenes; what `mmzoo data synth-nuscenes` makes is made at first use.

    Other times lie half a second apart, whatever the rate is: number 0 is the key frame before.

    Args:
        folder: where the data set is, or comes.
        split: `train` or `val`.
        scenes: as in `data.scenes.settings.Settings`, as all that follow.
        frames: key frames of a scene.
        width: pixels.
        height: pixels.
        seed: of everything.
        rate: pictures a second.

    Raises:
        FileExistsError: the folder holds something else, or was made with other settings.
    """
    settings = Settings(scenes=scenes, frames=frames, width=width, height=height, seed=seed, rate=rate)
    made = generate(folder, settings)
    splits = str(made / VERSION / "splits.json")
    return nuscenes_scenes(str(made), VERSION, split, splits, spacing=rate // KEY_RATE, most=3)
