"""The commands and what the shell needs to know of them; the standard library only."""

from __future__ import annotations

import sys

#: How this process was started: Lightning's launcher starts its other ranks the same way.
PROGRAM = sys.argv[0]

#: command -> (what follows it, one line of help)
COMMANDS = {
    "train": ("[recipe]", "train a recipe (default: quickstart) and evaluate it; -m sweeps"),
    "eval": ("SOURCE", "evaluate a checkpoint or run folder: benchmark=NAME"),
    "report": ("RUN [RUN ...]", "several runs, over methods and seeds, in one table and plot: by=KEY out=FOLDER"),
    "embed": ("SOURCE DATA", "embed images and texts to parquet or npz, resumable: out=FOLDER"),
    "tokenize": ("SOURCE DATA", "encode pictures and clips to visual codes, resumable: out=FOLDER"),
    "retrieve": ("FOLDER QUERY", "find what is nearest to a text or picture in such a folder"),
    "generate": ("SOURCE", 'pictures from texts: prompt="a red kite" ratio=4:3'),
    "chat": (
        "SOURCE [PICTURE ...] [QUESTION]",
        "answers about pictures, or to texts; without a question it asks for them",
    ),
    "detect": (
        "SOURCE IMAGES CALIBRATION",
        "boxes around a car from the pictures of its cameras: IMAGES is their folder, CALIBRATION a JSON file",
    ),
    "export": ("SOURCE", "both towers as ONNX graphs or torch programs: out=FOLDER"),
    "convert": ("SOURCE", "a checkpoint under a publisher's names or ours: out=FOLDER naming=NAME"),
    "dedupe": ("DATA", "hash pictures, list those that are in another set: out=FILE.npz against=FILE.npz"),
    "fuse": ("DATA", "web and model captions to fused ones by a language model, resumable: out=FOLDER"),
    "data": (
        "KIND FOLDER",
        "synth-nuscenes FOLDER: driving scenes; emoji-captions FOLDER: emoji with captions to fuse",
    ),
    "app": ("[FOLDER ...]", "try the models of some folders on a page of one's own: port=7860 (default folder: runs)"),
    "list": ("[pattern]", "variants, recipes and component files"),
    "describe": ("VARIANT", "the card of a variant"),
    "plan": (
        "VARIANT | RECIPE | fuse",
        "parameters, memory and FLOPs, before anything is allocated; fuse rows=120e6: hours and money of fusion",
    ),
}
#: Commands whose module has another name.
MODULES = {"app": "gallery"}
HYDRA_COMMANDS = ("train", "eval", "embed", "tokenize", "generate", "chat", "detect", "export", "fuse")
#: Commands whose second word names data.
DATA_COMMANDS = ("embed", "tokenize")
#: Commands whose module has `OPTIONS`: headings -> dataclasses of what may stand behind their plain words.
OPTION_COMMANDS = ("report", "retrieve", "convert", "app", "data", "dedupe", "plan")
#: Those of them whose other words are overrides.
OVERRIDE_COMMANDS = ("dedupe", "plan")
#: Commands whose first word is the value of a key, and no model.
SUBJECT_KEYS = {"fuse": "source.path"}
#: Commands whose further words are the values of some keys, in this order.
NAMED_WORDS = {"detect": ("images", "calibration")}
#: Commands whose further words are pictures, if they name files or end like one, and questions.
QUESTION_COMMANDS = ("chat",)
PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
#: Keys whose values are free text: commas, quotes and colons in them mean nothing.
TEXT_KEYS = {
    "generate": ("prompt", "negative", "suffix", "ratio", "prompts", "image"),
    "chat": ("prompt", "image", "out"),
}
DEFAULT_RECIPE = {"train": "quickstart"}
RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
