"""Answers as the servers and graders of benchmarks take them: VQAv2, VizWiz, MMBench, MM-Vet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.evaluation.question_records import records_at
from multimodal_zoo.evaluation.vqa_answers import normalized, option_letter
from multimodal_zoo.evaluation.vqa_questions import Answered, below, json_lines
from multimodal_zoo.evaluation.vqa_scores import Scored, mean
from multimodal_zoo.files import reading, write_text
from multimodal_zoo.registry import EVALUATORS

#: Columns of MMBench's answer sheet, as far as its table has them.
SHEET = ("index", "question", "hint", "A", "B", "C", "D", "category", "l2-category", "answer", "prediction")


def _written(folder: Path, name: str, content: Any, count: int) -> Scored:
    write_text(folder / name, json.dumps(content, ensure_ascii=False) + "\n")
    return Scored({"answers": float(count)}, [], ("answers",))


@EVALUATORS.register_module(name="vqav2_upload")
class Vqav2Upload:
    """VQAv2 (arXiv 1612.00837): `vqav2.json`, normalised answers; the server wants one to every question of the test.

    Args:
        root: the benchmarks' folder.
        file: all questions inside, JSON lines or the challenge's own file, with `question_id`; those not asked have an
            empty answer. None: the asked ones are all.
    """

    name = "vqav2"

    def __init__(self, root: str | None, file: str | None = None) -> None:
        self.root, self.file = root, file

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        said = {one.key: normalized(text) for one, text in answered}
        keys = list(said)
        if self.file is not None:
            path = below(self.root, self.file, "vqav2_upload.file")
            lines = path.suffix == ".jsonl"
            with reading(path, "list of a test's questions"):
                rows = json_lines(path, ("question_id",)) if lines else records_at(path, "questions")
                keys = [row["question_id"] for row in rows]
                json.dumps(dict.fromkeys(keys, ""), ensure_ascii=False).encode()
        rows_ = [{"question_id": key, "answer": said.get(key, "")} for key in keys]
        return _written(folder, "vqav2.json", rows_, sum(key in said for key in keys))


@EVALUATORS.register_module(name="vizwiz_upload")
class VizWizUpload:
    """VizWiz (arXiv 1802.08218): `vizwiz.json`, the normalised answer to each picture's question."""

    name = "vizwiz"

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        rows = [{"image": one.image, "answer": normalized(text)} for one, text in answered]
        return _written(folder, "vizwiz.json", rows, len(rows))


@EVALUATORS.register_module(name="mmvet_upload")
class MmvetUpload:
    """MM-Vet (arXiv 2308.02490): `mmvet.json`, answers by number for its grader, a language model."""

    name = "mmvet"

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        return _written(folder, "mmvet.json", {f"v1_{one.key}": text for one, text in answered}, len(answered))


@EVALUATORS.register_module(name="mmbench_upload")
class MmbenchUpload:
    """MMBench (arXiv 2307.06281): `<name>.tsv`, a table to be saved as a sheet for the server.

    The development sets have their answers, so a share of right letters is told too. It is not the server's figure,
    which understands other answers than letters.

    Args:
        name: of the table, `mmbench` or `mmbench_cn`.
    """

    def __init__(self, name: str = "mmbench") -> None:
        self.name = name

    def __call__(self, answered: Sequence[Answered], folder: Path) -> Scored:
        """See `Score`."""
        table = io.StringIO()
        columns = [name for name in SHEET if name == "prediction" or any(name in one.facts for one, _ in answered)]
        sheet = csv.DictWriter(table, columns, delimiter="\t", extrasaction="ignore", lineterminator="\n")
        sheet.writeheader()
        rights = []
        for one, text in answered:
            sheet.writerow({**one.facts, "prediction": text})
            if one.facts.get("answer") in tuple(one.facts["letters"]):
                rights.append(float(option_letter(text, one.facts["letters"]) == one.facts["answer"]))
        write_text(folder / f"{self.name}.tsv", table.getvalue())
        metrics = {"answers": float(len(answered)), **({"letters": mean(rights)} if rights else {})}
        return Scored(metrics, [], tuple(metrics))
