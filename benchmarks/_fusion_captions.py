"""Made-up captions in the layout of CapsFusion-120M: as long as the published ones, every address once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: Words of captions: names, numbers, colours and what is between them.
WORDS = str.split(
    "red kite sky over field with the man woman dog Berlin Paris 1998 river lamp blue car street house Canon photo "
    "image stock large small bridge tower old new green boat 24 market night Anna Museum of Art view from window"
)
#: Rows that are made at once.
CHUNK = 50_000


def write_captions(path: Path, rows: int, seed: int = 0) -> Path:
    """A parquet file of `image_url`, `laion_2b` (11 words) and `laion_coco` (9 words).

    Args:
        path: of the file.
        rows: how many.
        seed: of the draws.
    """
    import pyarrow as pa
    from pyarrow import parquet

    random, words = np.random.default_rng(seed), np.array(WORDS)
    schema = pa.schema([(name, pa.string()) for name in ("image_url", "laion_2b", "laion_coco")])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            raw, synthetic = (
                [" ".join(chosen) for chosen in words[random.integers(0, len(words), (count, length))]]
                for length in (11, 8)
            )
            urls = [f"https://example.org/{start + number:09d}.jpg" for number in range(count)]
            columns = [urls, raw, [f"a {text}." for text in synthetic]]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
    return path
