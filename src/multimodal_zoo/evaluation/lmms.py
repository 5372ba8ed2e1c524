r"""Models of this library as models of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval).

    python -m lmms_eval --model multimodal_zoo --tasks mme --batch_size 4 \
        --model_args pretrained=models/Emu3-Chat,vision_tokenizer=models/Emu3-VisionTokenizer,device=cuda
    python -m lmms_eval --model multimodal_zoo --tasks gqa,pope,textvqa_val --batch_size 4 \
        --model_args pretrained=models/EVE-7B-HD-v2.0,prompts=eve,device=cuda,dtype=bfloat16
    python -m lmms_eval --model multimodal_zoo --tasks vqav2_val,ok_vqa_val2014 --batch_size 4 \
        --model_args pretrained=models/Emu2-Chat,prompts=emu2_chat,device=cuda,dtype=bfloat16

lmms-eval finds `MANIFEST` by this package's entry point `lmms_eval.models`. Only this module imports lmms-eval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL.Image import Image as PilImage

from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.evaluation.asking import Asking
from multimodal_zoo.evaluation.features import Counter
from multimodal_zoo.evaluation.likelihood import likelihoods
from multimodal_zoo.evaluation.task_prompts import prompt_of, way_of
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.chat import MAX_NEW_TOKENS, answer
from multimodal_zoo.inference.speaking import evaluating, text_of
from multimodal_zoo.inference.writers import writer_of
from multimodal_zoo.zoo import from_pretrained

MANIFEST = ModelManifest("multimodal_zoo", simple_class_path=f"{__name__}.ChatModel")
#: Words by which tasks mark the places of pictures in their texts; all models here have their pictures in front.
PLACEHOLDER = re.compile(r"<(?:image|video)(?: ?\d+)?>\n?")


class ChatModel(lmms):
    """A model that answers questions about pictures (`emu3_chat`, `eve_7b`, ...), in the layout of its processor.

    Texts of tasks never become special tokens. Texts of a question are put behind its pictures.

    Args:
        pretrained: as `path` of `zoo.from_pretrained`.
        vision_tokenizer: as there.
        device: where the model runs.
        dtype: of the weights; `auto` for the file's own.
        prompts: whose published way of asking replaces the tasks' own: `eve`, `emu_instruct`, `emu2` or
            `emu2_chat`; None leaves these as they are. It also says how long answers may be, how tokens are chosen,
            and what of an answer counts.
        batch_size: answers written at a time.
        max_batch_size: not used; lmms-eval gives it to every model.
    """

    def __init__(
        self,
        pretrained: str,
        vision_tokenizer: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
        prompts: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        del max_batch_size
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size is {batch_size}; expected a whole number of at least 1")
        self.way = way_of(prompts)
        self.model = from_pretrained(pretrained, vision_tokenizer=vision_tokenizer, device=device, dtype=dtype)
        self.writer = writer_of(self.model, "lmms-eval")
        self.batch_size = int(batch_size)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers, each up to the first of its task's stop words; greedy unless the task asks for a temperature.

        Raises:
            ValueError: a task that wants beams, or one with something else than pictures.
        """
        options = [self._options(dict(request.args[1]), request.args[4]) for request in requests]
        answers = [""] * len(requests)
        with Counter("answers", len(requests)) as counter:
            for places in _alike(options):
                for start in range(0, len(places), self.batch_size):
                    now = places[start : start + self.batch_size]
                    documents = [self._shown(requests[n].args[0], *requests[n].args[2:6]) for n in now]
                    for at, text in zip(now, self._answers(documents, options[now[0]]), strict=True):
                        answers[at] = text
                    counter.advance(len(now))
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """For each continuation its loss, and whether greedy decoding would write it.

        The loss is minus the logarithm of the probability, summed over tokens: lmms-eval takes the choice with the
        least of what a model returns here. Each pair is wrapped, since lmms-eval 0.7 makes text of bare ones.
        """
        found: list[Any] = [None] * len(requests)
        keys = [(request.args[0], *request.args[3:6]) for request in requests]  # a question and its pictures
        with evaluating(self.model) as device, Counter("continuations", len(requests)) as counter:
            for places in _alike(keys):
                context, _, *shown = requests[places[0]].args
                document = self._shown(context, *shown[:4]) if shown else Document([Text(context)])
                prompt = self.writer.prompts([document], False, device)
                ends = [self._continuation(requests[place], text_of(document)) for place in places]
                result = likelihoods(self.writer.model.decoder, prompt, ends, self.batch_size)
                for place, score, greedy in zip(places, result.scores.tolist(), result.greedy.tolist(), strict=True):
                    found[place] = GenerationResult((-score, greedy))
                counter.advance(len(places))
        return found

    def _continuation(self, request: Instance, question: str) -> list[int]:
        said = request.args[1]
        if callable(said):
            place, task, split = request.args[3:6]
            said = said(self.task_dict[task][split][place])
        return self.writer.continuation(question, str(said), end=False)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Answers of all rounds, of which a task makes the next from the answers so far."""
        return [self._rounds(request) for request in requests]

    def _rounds(self, request: Instance) -> list[str]:
        context, wanted, visuals, again, place, task, split = request.args
        sample = self.task_dict[task][split][place]
        document, said, info = self._document(context, visuals, task, sample), [], None
        while True:
            said += self._answers([document], self._options(dict(wanted), task))
            pictures, context, done, said, info = again(
                sample, previous_output=said, round_idx=len(said), previous_round_info=info
            )
            said = list(said)
            if done:
                return said
            document = _asked(context, pictures)

    def _shown(self, context: str, visuals: Callable[[Any], Any] | None, place: int, task: str, split: str) -> Document:
        return self._document(context, visuals, task, self.task_dict[task][split][place])

    def _document(self, context: str, visuals: Callable[[Any], Any] | None, task: str, sample: Any) -> Document:
        prompt = prompt_of(self.way, task)
        asked = context if prompt is None else prompt.asked(context, sample)
        return _asked(asked, visuals(sample) if visuals is not None else None)

    def _options(self, wanted: dict[str, Any], task: str) -> dict[str, Any]:
        prompt = prompt_of(self.way, task)
        if prompt is None:
            return wanted
        settled = {"max_new_tokens": prompt.max_new_tokens, "temperature": 0, "do_sample": False}
        return {**wanted, **settled, **({"asking": dict(prompt.asking)} if prompt.asking else {})}

    def _answers(self, documents: Sequence[Document], wanted: dict[str, Any]) -> list[str]:
        until = wanted.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        sampling, most = _sampling(wanted), wanted.get("max_new_tokens")
        if "asking" in wanted:
            texts = Asking(**wanted["asking"]).answers(self.model, documents, int(most or MAX_NEW_TOKENS))
            return [_cut(text, stops) for text in texts]
        texts = answer(self.model, documents, sampling=sampling, max_new_tokens=most, special=False)
        return [_cut(text, stops) for text in texts]


def _asked(context: str, visuals: Sequence[Any] | None) -> Document:
    """A question behind its pictures.

    Raises:
        ValueError: something else than pictures.
    """
    pictures = list(visuals or [])
    if strange := [type(one).__name__ for one in pictures if not isinstance(one, PilImage)]:
        raise ValueError(f"the task shows a {strange[0]}; this adapter takes pictures (PIL)")
    return Document([*(Image(one) for one in pictures), Text(PLACEHOLDER.sub("", context))])


def _sampling(wanted: Mapping[str, Any]) -> Sampling:
    """How a task wants tokens to be chosen.

    Raises:
        ValueError: beams.
    """
    if (wanted.get("num_beams") or 1) > 1:
        raise ValueError(f"generation_kwargs.num_beams is {wanted['num_beams']}; only one beam is offered")
    temperature = wanted.get("temperature") or 0
    if not temperature or wanted.get("do_sample") is False:
        return Sampling(greedy=True)
    return Sampling(temperature=temperature, top_p=wanted.get("top_p") or 1.0, top_k=wanted.get("top_k"))


def _cut(text: str, stops: Sequence[str]) -> str:
    ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def _alike(values: Sequence[Any]) -> list[list[int]]:
    """Places of equal values, in the order of the first of each."""
    groups: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault(repr(value), []).append(place)
    return list(groups.values())
