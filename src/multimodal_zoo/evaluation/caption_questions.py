"""Pictures to be described, from annotation files as they are published: Karpathy's splits, COCO, nocaps, TextCaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.evaluation.vqa_questions import Question, file_and_pictures, json_at, require_keys
from multimodal_zoo.files import reading
from multimodal_zoo.registry import EVALUATORS


@EVALUATORS.register_module(name="karpathy_captions")
class KarpathyCaptions:
    """One split of `dataset_coco.json` or `dataset_flickr30k.json` (Karpathy and Fei-Fei, arXiv 1412.2306).

    Args:
        root: the benchmarks' folder.
        file: path of the splits inside.
        images: folder of the pictures inside.
        split: `test`, `val`, `train` or `restval`.
        text: what is asked about each picture.
    """

    def __init__(self, root: str | None, file: str, images: str, split: str = "test", text: str = "") -> None:
        self.root, self.file, self.images, self.split, self.text = root, file, images, split, text

    def read(self) -> list[Question]:
        """See `QuestionSet`; the facts have the true captions, and `image_id` as COCO or Flickr30k count.

        Raises:
            ValueError: a file of another layout, or no picture of the split.
        """
        path, images = file_and_pictures(self.root, self.file, self.images, "karpathy_captions")
        found, splits = [], set()
        for row in _rows(path, json_at(path), "images", ("filename", "split", "sentences")):
            splits.add(str(row["split"]))
            if row["split"] != self.split:
                continue
            with reading(path, "file of Karpathy's splits"):
                name = str(Path(row.get("filepath", ""), row["filename"]))
                key = row.get("cocoid", row.get("imgid", row["filename"]))
                captions = [str(one["raw"]) for one in row["sentences"]]
            found.append(Question(key, self.text, name, images / name, {"caption": captions, "image_id": key}))
        if not found:
            known = ", ".join(sorted(splits))
            raise ValueError(f"{path}: no picture of karpathy_captions.split={self.split!r}; there are {known}")
        return found


@EVALUATORS.register_module(name="coco_captions")
class CocoCaptions:
    """`images` and `annotations` in one file: COCO's captions (arXiv 1504.00325), nocaps (arXiv 1812.08658).

    nocaps says of each picture whether its objects are known from COCO: `domain` is `in-domain`, `near-domain` or
    `out-domain`. Test sets have no annotations; their descriptions go to a server.

    Args:
        root: the benchmarks' folder.
        file: path of the annotations inside.
        images: folder of the pictures inside.
        text: what is asked about each picture.
    """

    def __init__(self, root: str | None, file: str, images: str, text: str = "") -> None:
        self.root, self.file, self.images, self.text = root, file, images, text

    def read(self) -> list[Question]:
        """See `QuestionSet`; the facts have the true captions, `image_id`, and `domain` if there is one.

        Raises:
            ValueError: a file of another layout, or a caption of a picture that is not there.
        """
        path, images = file_and_pictures(self.root, self.file, self.images, "coco_captions")
        with reading(path, "file of COCO's captions"):
            return self._questions(path, images, json_at(path))

    def _questions(self, path: Path, images: Path, whole: Any) -> list[Question]:
        """A question for each picture, in the order of the file."""
        captions: dict[Any, list[str]] = {}
        pictures = {row["id"]: row for row in _rows(path, whole, "images", ("id", "file_name"))}
        for row in _rows(path, whole, "annotations", ("image_id", "caption"), needed=False):
            if row["image_id"] not in pictures:
                raise ValueError(f"{path}: a caption of picture {row['image_id']!r}, which is not among the images")
            captions.setdefault(row["image_id"], []).append(str(row["caption"]))
        found = []
        for key, row in pictures.items():
            facts = {"image_id": key, **({"caption": captions[key]} if key in captions else {})}
            if "domain" in row:
                facts["domain"] = row["domain"]
            found.append(Question(key, self.text, row["file_name"], images / row["file_name"], facts))
        return found


@EVALUATORS.register_module(name="textcaps_captions")
class TextcapsCaptions:
    """TextCaps (arXiv 2003.12462), `TextCaps_0.1_val.json`: `data`, a row for each caption.

    Args:
        root: the benchmarks' folder.
        file: path of the annotations inside.
        images: folder of the pictures inside, TextVQA's.
        image: the name of a picture's file; `{image_id}` is put in.
        text: what is asked about each picture.
    """

    def __init__(self, root: str | None, file: str, images: str, image: str = "{image_id}.jpg", text: str = "") -> None:
        if "{image_id}" not in image:
            raise ValueError(f"textcaps_captions.image is {image!r}; the picture's id goes where it has {{image_id}}")
        self.root, self.file, self.images, self.image, self.text = root, file, images, image, text

    def read(self) -> list[Question]:
        """See `QuestionSet`; pictures in the order of their first rows. Test sets have no captions."""
        path, images = file_and_pictures(self.root, self.file, self.images, "textcaps_captions")
        captions: dict[str, list[str]] = {}
        for row in _rows(path, json_at(path), "data", ("image_id",)):
            texts = captions.setdefault(str(row["image_id"]), [])
            given = [row["caption_str"]] if "caption_str" in row else row.get("reference_strs") or []
            texts += [str(one) for one in given if str(one) not in texts]
        found = []
        for key, texts in captions.items():
            name = self.image.replace("{image_id}", key)
            facts = {"image_id": key, **({"caption": texts} if texts else {})}
            found.append(Question(key, self.text, name, images / name, facts))
        return found


def _rows(
    path: Path, whole: Any, name: str, wanted: tuple[str, ...], needed: bool = True
) -> Iterator[Mapping[str, Any]]:
    """The objects of a list in a file.

    Raises:
        ValueError: no such list, or an object without what is wanted; the message has its number.
    """
    rows = whole.get(name) if isinstance(whole, dict) else None
    if rows is None and not needed:
        return
    if not isinstance(rows, list):
        raise ValueError(f"{path}: no list {name!r}; expected an object with one")
    for number, row in enumerate(rows):
        require_keys(row, wanted, f"{path}, {name} {number}")
        yield row
