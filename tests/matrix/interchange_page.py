"""Writes docs/interchange.md from the declarations that the tests of the matrix run.

python tests/matrix/interchange_page.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from interchange_parts import DECODERS, IMAGE_ENCODERS, OBJECTIVES, TEXT_ENCODERS, VISUAL_TOKENIZERS, Part
from interchange_slots import CAPTIONERS, DECODER_SLOTS, EMU3, IMAGE_SLOTS, STUDENT, TEACHER, TEXT, Slot

PAGE = Path(__file__).parents[2] / "docs" / "interchange.md"
FITS, NOT = "fits", "no"

HEAD = """# Interchange matrix

<!-- Written by `python tests/matrix/interchange_page.py` from the declarations in tests/matrix. -->

Every part that the library has, or borrows, in every slot that takes one, **by overrides alone**. Behind each *fits*
stand two tests at tiny size: one optimiser's step with a finite loss and a gradient in the part (behind a teacher, and
codes of a tokenizer: in what learns from them), and a model that is saved, read back with `zoo.from_pretrained` and
gives the same outputs to the last bit. Behind each *no* stands a test of the error, which comes before anything is
allocated.

The words go behind `mmzoo train RECIPE`, or into `zoo.create(VARIANT, overrides=[...])`. Numbers in them are those of
the tests' small parts; yours take their place. Widths and picture sizes that are not named follow the part.

What lies in a folder stands in a slot by `${part:PLACE,NAME}`: the declaration of the part `image`, `text`, `decoder`
or `vision_tokenizer` of a training run, a folder of `save_model`, a publisher's folder or file, `hf://...` or
`package:...`. Its weights come along with `'initial_weights={NAME: PLACE}'`. Changes to it go behind:
`"${part:PLACE,image,{image_size: 96}}"`.

Where several processes train and a part has layers that a slot does not use (the pooling of a ResNet whose tokens alone
are read), training says which to freeze.
"""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def named(part: Part) -> str:
    """A part with the option that names it."""
    return part.title if part.placed else f"{part.title} (`{part.option}`)"


def words(slot: Slot, part: Part) -> str:
    """What the user writes."""
    return "<br>".join(f"`{word}`" for word in slot.choice(part)).replace("|", "\\|")


def state(slot: Slot, part: Part) -> str:
    """Whether a part fits."""
    return NOT if slot.refusal(part) else FITS


def matrix(parts: Sequence[Part], slots: Sequence[Slot], more: Callable[[Part], list[str]] = lambda part: []) -> str:
    """Parts by slots."""
    rows = [[named(part), *(state(slot, part) for slot in slots), *more(part)] for part in parts]
    extra = ["linear probe", "`mmzoo embed`"] if more(parts[0]) else []
    return table(["part", *(slot.title for slot in slots), *extra], rows)


def overrides(parts: Sequence[Part], slots: Sequence[Slot]) -> str:
    """The words of every cell, slot by slot, and why what does not fit does not."""
    found = []
    for slot in slots:
        rows = [[part.title, _why(slot, part)] for part in parts]
        found.append(f"### {slot.title}\n\nStarting from `{slot.variant}`.\n\n" + table(["part", "words"], rows))
    return "\n".join(found)


def _why(slot: Slot, part: Part) -> str:
    refusal = slot.refusal(part)
    return f"does not fit: {refusal}" if refusal else words(slot, part)


def page() -> str:
    """The whole page."""
    seeing = [*IMAGE_SLOTS, TEACHER, STUDENT]
    kinds = [named(part) for part in (*IMAGE_ENCODERS, *TEXT_ENCODERS)]
    captioners = [[f"`{name}`", f"`{word}`", refusal or FITS] for name, (word, refusal) in CAPTIONERS.items()]
    return "\n".join(
        [
            HEAD,
            "## Image encoders\n\nA probe and `mmzoo embed` read any dual encoder's folder.\n",
            matrix(IMAGE_ENCODERS, seeing, lambda part: [FITS, FITS]),
            "## Causal decoders\n",
            matrix(DECODERS, DECODER_SLOTS),
            "## Visual tokenizers and captioners\n",
            matrix(VISUAL_TOKENIZERS, [EMU3]),
            table(["model", "of CapsFusion", "state"], captioners),
            "`captioner.model=FOLDER` names the model; one that does not write is refused before its weights are read.",
            "BLIP and GIT stand for every image-to-text model of transformers.\n",
            "## Contrastive objectives\n",
            "`objective=NAME` on every dual encoder; heads that an objective needs are added by a word each.\n",
            table(["dual encoder with", *OBJECTIVES], [[kind, *[FITS] * len(OBJECTIVES)] for kind in kinds]),
            table(
                ["objective", "heads"],
                [[f"`{name}`", _heads(heads)] for name, heads in OBJECTIVES.items()],
            ),
            "## Words\n",
            overrides(IMAGE_ENCODERS, seeing),
            overrides(TEXT_ENCODERS, [TEXT]).replace("### dual encoder", "### dual encoder, text"),
            overrides(DECODERS, DECODER_SLOTS).replace("### ", "### Decoder of "),
            overrides(VISUAL_TOKENIZERS, [EMU3]).replace("### ", "### Visual tokenizer of "),
        ]
    )


def _heads(heads: Sequence[str]) -> str:
    return " ".join(f"`+head@model.heads.{head}={head}`" for head in heads) or "none"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
