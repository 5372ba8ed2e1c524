"""What one visitor may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Bounds of uploads, of work and of memory; all are our choice.

    Attributes:
        megabytes: of one file that is uploaded.
        upload: megabytes of all files that are uploaded together.
        megapixels: of one picture that is uploaded, told by its header before anything is decoded.
        files: uploaded for one scene.
        characters: of a text that is typed.
        seconds: that one answer or drawing may take.
        jobs: requests that are worked on at once; the others wait.
        waiting: requests that may wait; further ones are refused.
        models: that stay in memory; the one used longest ago goes first.
        album: pictures of a folder that are searched.

    Raises:
        ValueError: one of them is below 1.
    """

    megabytes: int = 20
    upload: int = 128
    megapixels: int = 40
    files: int = 64
    characters: int = 4000
    seconds: int = 300
    jobs: int = 1
    waiting: int = 16
    models: int = 2
    album: int = 4096

    def __post_init__(self) -> None:
        for field in fields(Limits):  # what inherits them may have other fields
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)}: expected at least 1")

    @property
    def bytes(self) -> int:
        """Of one uploaded file."""
        return self.megabytes * 2**20

    @property
    def upload_bytes(self) -> int:
        """Of all files that are uploaded together."""
        return self.upload * 2**20

    @property
    def pixels(self) -> int:
        """Of one uploaded picture."""
        return self.megapixels * 10**6

    def text(self, text: str | None, what: str) -> str:
        """A typed text without the white space around it.

        Args:
            text: as typed; None is empty.
            what: the field's name, for the error.

        Raises:
            ValueError: it is too long.
        """
        found = (text or "").strip()
        if len(found) > self.characters:
            raise ValueError(f"{what}: {len(found):,} characters; at most {self.characters:,} are taken")
        return found
