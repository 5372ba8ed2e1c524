"""What nuscenes-devkit makes of a data set and a submission; runs in an environment of its own, see the cross-check."""

from __future__ import annotations

import json
import sys
import tempfile
import time

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval


def main(root: str, version: str, split: str, submission: str) -> None:
    """Print all figures as one line of JSON."""
    tables = NuScenes(version=version, dataroot=root, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        rules = config_factory("detection_cvpr_2019")
        judge = DetectionEval(tables, rules, submission, split, output_dir=folder, verbose=False)
        start = time.process_time()
        metrics, _ = judge.evaluate()
        seconds = time.process_time() - start
    found = metrics.serialize()
    content = {
        "tables": {name: len(getattr(tables, name)) for name in tables.table_names},
        "objects": len(judge.gt_boxes.all),
        "boxes": len(judge.pred_boxes.all),
        "ap": {name: {str(metres): ap for metres, ap in aps.items()} for name, aps in found["label_aps"].items()},
        "errors": found["label_tp_errors"],
        "summary": [found["mean_ap"], *found["tp_errors"].values(), found["nd_score"]],
        "seconds": seconds,
        "numpy": np.__version__,
    }
    print(json.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
