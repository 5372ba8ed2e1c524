"""Language models of transformers with their tokenizers, from a folder or straight out of a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_zoo.captions.engines.model_files import ModelFiles
from multimodal_zoo.captions.engines.texts import Texts, TransformersTexts, ZooTexts
from multimodal_zoo.captions.hardware import DTYPES
from multimodal_zoo.packages import needed

#: The package, what needs it, and what it is installed with.
TRANSFORMERS = ("transformers", "transformers_engine", "captions")
#: Every folder is a local one, and code that lies in it is not run.
LOCAL = {"local_files_only": True, "trust_remote_code": False}


class LoadedModel(NamedTuple):
    """What an engine runs.

    Attributes:
        model: a causal language model of transformers, in evaluation mode.
        texts: its tokenizer.
    """

    model: Any
    texts: Texts


def load_transformers(files: ModelFiles, device: str = "cpu", dtype: str = "float32") -> LoadedModel:
    """A causal language model and its tokenizer.

    Pickled shards, as the published student has them (52 GB of float32), become the wanted type one after the other: no
    more than one of them is held besides the model.

    Args:
        files: a folder of Hugging Face, or a GGUF file of a family that this library reads.
        device: a torch device.
        dtype: of the weights: float32, bfloat16, float16, or auto for the folder's own.

    Raises:
        ModuleNotFoundError: no transformers.
        ValueError: files of another kind, a folder without some of the weights, or a GGUF file of an unknown family,
            type of weights or tokenizer.
    """
    from multimodal_zoo.checkpoints.locate import PICKLES, weight_files

    transformers = needed(*TRANSFORMERS)
    if files.is_gguf:
        return LoadedModel(gguf_model(files.path, device, dtype), gguf_texts(files.path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(files.path, **LOCAL)
    if all(file.name.endswith(PICKLES) for file in weight_files(files.path)):
        model = _from_pickles(transformers, files.path, _dtype(dtype))
    else:
        model = _from_folder(transformers.AutoModelForCausalLM, files.path, dtype=_dtype(dtype), **LOCAL)
    return LoadedModel(model.eval().to(device), TransformersTexts(tokenizer, _ends(model)))


def _from_pickles(transformers: Any, folder: Path, kind: Any) -> Any:
    """The model of a folder with pickled weights, each shard in the wanted type before the next is opened."""
    from multimodal_zoo.checkpoints.files import iterate_shards

    config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    state = {
        name: tensor if kind == "auto" else tensor.to(kind)
        for shard in iterate_shards(folder)
        for name, tensor in shard.items()
    }
    family = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    model = _from_folder(family, None, config=config, state_dict=state, dtype=kind)
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _from_folder(family: Any, place: Path | None, **options: Any) -> Any:
    """A model whose weights are all there.

    Raises:
        ValueError: some are not, or have another shape.
    """
    with _no_bars(needed(*TRANSFORMERS)):
        model, found = family.from_pretrained(place, output_loading_info=True, **options)
    lacking = [*found["missing_keys"], *(str(one) for one in found["mismatched_keys"])]
    if lacking:
        raise ValueError(
            f"fusion_engine.model: {len(lacking)} weights of {family.__name__} are not in its files, or have another "
            f"shape: {', '.join(sorted(lacking)[:5])}"
        )
    return model


def gguf_model(path: Path, device: str = "cpu", dtype: str = "float32") -> Any:
    """The model of a GGUF file as transformers' own class, with the weights that transformers reads, bit for bit.

    Nothing is drawn and nothing is copied: the tensors that the file is expanded to become the parameters.

    Args:
        path: the file.
        device: a torch device.
        dtype: of the weights; auto is float32.

    Raises:
        multimodal_zoo.checkpoints.errors.UnknownCheckpoint: a family or type of weights that is not read.
    """
    from multimodal_zoo.checkpoints.gguf import gguf_header, gguf_shards
    from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA
    from multimodal_zoo.checkpoints.tables.gguf import GGUF, config_from_gguf

    transformers = needed(*TRANSFORMERS)
    header = gguf_header(path)
    sizes = config_from_gguf(header)
    named = {name: tensor for shard in gguf_shards(path) for name, tensor in shard.items()}
    state = LLAMA.save(GGUF.load(named))
    facts = {key: header.facts.get(f"tokenizer.ggml.{key}") for key in ("bos_token_id", "eos_token_id")}
    config = transformers.AutoConfig.for_model(sizes.pop("model_type"), **sizes, **facts)
    kind = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    model = _from_folder(kind, None, config=config, state_dict=state, dtype=_dtype(dtype, auto="float32"))
    return model.eval().to(device)


def gguf_texts(path: Path) -> Texts:
    """The tokenizer in a GGUF file's header.

    Raises:
        ValueError: one of another kind; llama.cpp reads all of them.
    """
    from multimodal_zoo.tokenizers.gguf_tokenizer import GgufTokenizer

    try:
        return ZooTexts(GgufTokenizer(str(path)))
    except ValueError as error:
        raise ValueError(f"{error}; fusion_engine=llama_cpp reads such a file") from error


def _ends(model: Any) -> list[int]:
    """The ids that a model's own generation settings end at."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        return []
    return [int(one) for one in (ends if isinstance(ends, (list, tuple)) else [ends])]


def _dtype(name: str, auto: str = "auto") -> Any:
    import torch

    name = auto if name == "auto" else name
    known = {"auto": "auto", **{one: getattr(torch, one) for one in DTYPES}}
    if name not in known:
        raise ValueError(f"fusion_engine.dtype is {name!r}; expected {', '.join(known)}")
    return known[name]


@contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:
    """Load without a progress bar for each worker."""
    logs = transformers.utils.logging
    shown = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logs.enable_progress_bar()
