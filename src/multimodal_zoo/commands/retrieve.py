"""`mmzoo retrieve FOLDER QUERY [QUERY ...]`: what in a folder of embeddings is nearest to a text or a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.commands.options import separate
from multimodal_zoo.files import read_lines, write_bytes, write_text

if TYPE_CHECKING:
    from torch import nn

    from multimodal_zoo.evaluation.nearest import Hit

#: What is searched -> the column that is.
COLUMNS = {"images": "image_embedding", "texts": "text_embedding"}
#: Rows of the picture grid; further queries are in the JSON only.
GRID_ROWS = 20


@dataclass(frozen=True)
class Options:
    """What may stand behind the queries, `key=value`.

    Attributes:
        queries: a text file with one more query a line.
        k: matches for each query.
        against: `images` or `texts`; None: images where the folder has them.
        out: files written, without suffix: `.json` and `.png`.
        grid: whether the picture is drawn.
        json: whether plain JSON is printed in place of tables.
        search: library that searches, `torch` or `faiss`; both are exact.
        model: where the model is now, for a folder whose manifest names another place.
        device: where the model runs.
        threads: CPU threads of torch; None leaves torch's own choice.
    """

    queries: str | None = None
    k: int = 8
    against: str | None = None
    out: str = "retrieved"
    grid: bool = True
    json: bool = False
    search: str = "torch"
    model: str | None = None
    device: str = "cpu"
    threads: int | None = None


OPTIONS = {"options": Options}


def main(arguments: list[str]) -> int:
    """Print the matches of each query; write them to JSON, and to a picture.

    Raises:
        ValueError: no folder or query, an option that does not fit, or a model whose weights are not the folder's.
        FileNotFoundError: no folder of embeddings, or no such picture or file of queries.
    """
    words, options = parse(arguments)
    if not words or (len(words) == 1 and options.queries is None):
        raise ValueError('mmzoo retrieve needs a folder of embeddings and a query: mmzoo retrieve FOLDER "a red car"')
    from multimodal_zoo.commands.machine import device_of, use_threads
    from multimodal_zoo.evaluation.embedding_folder import EmbeddingFolder
    from multimodal_zoo.evaluation.nearest import search_shards
    from multimodal_zoo.evaluation.searching import embed_queries

    folder, manifest = EmbeddingFolder.open(words[0])
    against = options.against or ("images" if manifest.get("images") else "texts")
    if not manifest.get(against):
        raise ValueError(f"against={against}: {words[0]} was made without {against}")
    queries = read_queries(words[1:], options.queries)
    device = device_of(options.device)
    use_threads(options.threads)
    model = load(manifest, options)
    start = time.perf_counter()
    vectors = embed_queries(model, queries, device)
    embedded = time.perf_counter()
    found = search_shards(vectors, folder.shards(), COLUMNS[against], options.k, options.search)
    seconds = {"queries": round(embedded - start, 3), "search": round(time.perf_counter() - embedded, 3)}
    answers = [
        {"query": str(query), "matches": [hit.as_dict() for hit in hits]}
        for query, hits in zip(queries, found, strict=True)
    ]
    facts = {"folder": words[0], "against": against, "search": options.search, "complete": manifest["complete"]}
    content = json.dumps({**facts, "seconds": seconds, "answers": answers}, indent=1, ensure_ascii=False)
    written = [str(write_text(f"{options.out}.json", content + "\n"))]
    if options.grid:
        written.append(str(draw(manifest, queries[:GRID_ROWS], found[:GRID_ROWS], f"{options.out}.png")))
    if options.json:
        print(content)
    else:
        show(queries, found, f"{manifest.get('documents', '?')} documents, {seconds['search']} s; {', '.join(written)}")
    return 0


def parse(arguments: Sequence[str]) -> tuple[list[str], Options]:
    """Separate the folder and the queries from the options.

    Raises:
        ValueError: an unknown option, or a value that does not fit.
    """
    words, options = separate(arguments, Options)
    if options.k < 1:
        raise ValueError(f"k={options.k}: expected 1 match or more")
    if options.against not in (None, *COLUMNS):
        raise ValueError(f"against={options.against}: expected {' or '.join(COLUMNS)}")
    return words, options


def read_queries(words: Sequence[str], listed: str | None) -> list[str | Path]:
    """The queries of the command line and of a file; a picture's path is a query by that picture.

    Raises:
        FileNotFoundError: a picture or file that is not there.
        ValueError: no query at all.
    """
    from multimodal_zoo.data.folder_pictures import SUFFIXES

    lines = list(words)
    if listed is not None:
        if not Path(listed).is_file():
            raise FileNotFoundError(f"queries={listed}: no such file; it has one query a line")
        lines += read_lines(listed, "list of queries")
    queries: list[str | Path] = []
    for line in filter(None, lines):
        is_picture = line.lower().endswith(SUFFIXES)
        if is_picture and not Path(line).is_file():
            raise FileNotFoundError(f"{line}: no such picture")
        queries.append(Path(line) if is_picture else line)
    if not queries:
        raise ValueError("the query is empty" if listed is None else f"queries={listed}: there is no query in it")
    return queries


def load(manifest: dict[str, Any], options: Options) -> nn.Module:
    """The model that made the embeddings.

    Raises:
        ValueError: other weights than those.
    """
    from omegaconf import OmegaConf

    from multimodal_zoo.commands.eval import load_model
    from multimodal_zoo.evaluation.environment import fingerprint, require_vectors

    named = dict(manifest["model"])
    if options.model is not None:
        # a variant keeps its declaration, whose weights are elsewhere now
        named["source" if named["model"] is None else "weights"] = options.model
    model: nn.Module = load_model(OmegaConf.create(named), "retrieve").to(options.device)
    require_vectors(model, "retrieve")
    if (found := fingerprint(model)) != manifest["weights"]:
        raise ValueError(
            f"{named['source'] or named['weights'] or 'the model'} has other weights (fingerprint {found}) than the "
            f"model that made the embeddings ({manifest['weights']}); name that one with model=PATH"
        )
    return model


def draw(manifest: dict[str, Any], queries: Sequence[str | Path], found: Sequence[Sequence[Hit]], path: str) -> Path:
    """Write the picture of queries and matches."""
    from multimodal_zoo.data.pictures import open_picture, to_rgb
    from multimodal_zoo.evaluation.match_grid import match_grid
    from multimodal_zoo.evaluation.searching import find_pictures

    tiles = find_pictures(manifest, found)
    shown = [query if isinstance(query, str) else to_rgb(open_picture(query)) for query in queries]
    return write_bytes(path, match_grid(shown, tiles))


def show(queries: Sequence[str | Path], found: Sequence[Sequence[Hit]], summary: str) -> None:
    """Print a table for each query."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for query, hits in zip(queries, found, strict=True):
        table = Table("", "score", "key", "text", title=Text(str(query)), title_justify="left")
        for place, hit in enumerate(hits, start=1):
            where = f"{hit.shard}: {hit.key}" if hit.shard else hit.key
            table.add_row(str(place), f"{hit.score:.3f}", Text(where), Text(hit.text))
        console.print(table)
    console.print(summary, soft_wrap=True, highlight=False)
