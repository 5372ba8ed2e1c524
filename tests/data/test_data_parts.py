from __future__ import annotations

import subprocess
import sys

PARTS = """
import sys
import multimodal_zoo.data.parts
from multimodal_zoo.registry import DATASETS
heavy = {"lightning", "transformers", "datasets", "webdataset", "torchvision", "open_clip", "timm"} & set(sys.modules)
print(",".join(sorted(DATASETS.module_dict)), ";", ",".join(sorted(heavy)))
"""


def test_parts_register_without_heavy_imports() -> None:
    run = subprocess.run([sys.executable, "-c", PARTS], capture_output=True, text=True, check=True)
    names, heavy = run.stdout.strip().split(" ;")
    readers = {"emoji_pairs", "webdataset_pairs", "folder_pairs", "huggingface_pairs", "clip_benchmark"}
    others = {"emoji_texts", "image_text_data", "image_text_processor", "webdataset_export"}
    assert readers | others <= set(names.split(","))
    assert heavy.strip() == ""
