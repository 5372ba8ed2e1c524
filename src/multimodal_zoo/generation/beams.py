"""Beam search: several continuations of each prompt side by side, the best whole one is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from multimodal_zoo.generation.loop import Decoder, Generated, Progress, Reader, Scoring, generate
from multimodal_zoo.generation.penalties import Penalties
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.generation.trie import Trie
from multimodal_zoo.generation.undisturbed import undisturbed

#: Score of beams that do not exist yet: at the first step all of a row are equal.
NONE = -1e9


@dataclass(frozen=True)
class Beams:
    """How beams are searched; the defaults are those of Emu's published code.

    Attributes:
        count: beams of each row; 1 takes the likeliest id at every step.
        length_penalty: sums of log-probabilities are divided by the length to this power: below 0 shorter texts win,
            0 takes the sums as they are.
        min_length: fewest ids of a text before its end, the counted start among them.
        repetition_penalty: see `Penalties`.
        counts_start: whether a begin that the model never reads counts as the first id of every text, as in
            transformers before 4.38, with which all figures of Emu and Emu2 were measured.

    Raises:
        ValueError: no beam, or a repetition penalty that is not positive.
    """

    count: int = 5
    length_penalty: float = 0.0
    min_length: int = 1
    repetition_penalty: float = 1.0
    counts_start: bool = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"beams.count is {self.count}; expected 1 or more")
        Penalties(self.repetition_penalty)

    def penalties(self, start: int, allowed: Trie | None) -> Penalties:
        """What changes the scores.

        Args:
            start: the id that counts as the first of every text.
            allowed: see `Penalties`.
        """
        counted = start if self.counts_start else None
        return Penalties(self.repetition_penalty, self.min_length, counted, allowed)


@dataclass
class _Texts:
    """The whole texts of one row so far, the best ones.

    Attributes:
        most: how many are kept.
        found: score and ids of each, from the best on.
        closed: whether no better one can come.
    """

    most: int
    found: list[tuple[float, Tensor]] = field(default_factory=list)
    closed: bool = False

    def add(self, score: float, ids: Tensor) -> None:
        """Keep a text if it is among the best."""
        self.found = sorted([*self.found, (score, ids)], key=lambda one: -one[0])[: self.most]

    def close(self, best: float) -> None:
        """Stop where the worst text that is kept is no worse than the best sum that is still alive, at its length."""
        self.closed = self.closed or (len(self.found) == self.most and self.found[-1][0] >= best)


def beam_search(
    decoder: Decoder,
    prompts: PromptBatch,
    policy: FreeText,
    beams: Beams,
    *,
    start: int = 1,
    allowed: Trie | None = None,
    on_token: Callable[[Progress], None] | None = None,
) -> Generated:
    """The best continuation of each prompt, as transformers 4.31 finds it; all rows at once, each as it would be alone.

    Of the 2 x count best candidates of a row, ends among the first `count` become whole texts and the best others live
    on. Prompts are read once; of the cache only what lies behind them is put in order.

    Args:
        decoder: the model, in evaluation mode.
        prompts: (rows, tokens).
        policy: how long texts may be, and what ends them.
        beams: how they are searched.
        start: the id that counts as the first of every text where `beams.counts_start` says so.
        allowed: the only texts that may be written, their end among them; None for any.
        on_token: called after every step, with the best beam of each row.

    Raises:
        ValueError: more tokens than positions, or texts without an end.
    """
    if policy.end is None or policy.rows is not None:
        raise ValueError("beams need texts of any ids that one of them ends: FreeText(limit, end, pad)")
    penalties = beams.penalties(start, allowed)
    if beams.count == 1:
        scoring = Scoring(penalties=penalties)
        return generate(decoder, prompts, policy, sampling=Sampling(greedy=True), scoring=scoring, on_token=on_token)
    with undisturbed(decoder):
        found = _searched(decoder, prompts, policy, beams, penalties, on_token)
    return Generated(found.ids.clone(), found.lengths.clone())


def _searched(
    decoder: Decoder,
    prompts: PromptBatch,
    policy: FreeText,
    beams: Beams,
    penalties: Penalties,
    on_token: Callable[[Progress], None] | None,
) -> Generated:
    search = _Search(Reader(decoder, prompts, policy.read), policy, beams, penalties, prompts)
    for step in range(policy.limit):
        search.step()
        if on_token is not None:
            on_token(Progress(search.ids[:, 0], policy.limit))
        if all(texts.closed for texts in search.texts) or step == policy.limit - 1:
            break
        search.read()
    return search.done()


class _Search:
    """A search under way."""

    def __init__(
        self, reader: Reader, policy: FreeText, beams: Beams, penalties: Penalties, prompts: PromptBatch
    ) -> None:
        self.reader, self.policy, self.beams, self.penalties = reader, policy, beams, penalties
        self.rows, device = len(prompts), reader.state.device
        reader.keep(torch.arange(self.rows, device=device).repeat_interleave(beams.count))
        self.ids = torch.empty(self.rows, beams.count, 0, dtype=torch.long, device=device)
        self.sums = torch.full((self.rows, beams.count), NONE, device=device)
        self.sums[:, 0] = 0
        self.origin = torch.arange(self.rows * beams.count, device=device).view(self.rows, -1)
        self.texts = [_Texts(beams.count) for _ in range(self.rows)]

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self.beams.length_penalty)

    def step(self) -> None:
        """One id more for every beam."""
        count, before = self.beams.count, self.ids.flatten(0, 1)
        scores = self.reader.decoder.head(self.reader.state).float().log_softmax(-1)
        scores = self.penalties(scores, before, self.policy.end).view(self.rows, count, -1) + self.sums[..., None]
        best, places = scores.flatten(1).topk(2 * count)
        sums, parents, new = best.tolist(), (places // scores.shape[2]).tolist(), (places % scores.shape[2]).tolist()
        chosen = [self._row(*row) for row in zip(range(self.rows), sums, parents, new, strict=True)]
        device = self.ids.device
        kept, ids = (torch.tensor([row[number] for row in chosen], device=device) for number in (0, 1))
        self.sums = torch.tensor([row[2] for row in chosen], device=device)
        self.ids = torch.cat([self.ids.gather(1, kept[..., None].expand_as(self.ids)), ids[..., None]], 2)
        self.origin = kept + count * torch.arange(self.rows, device=device)[:, None]

    def _row(
        self, row: int, sums: list[float], parents: list[int], new: list[int]
    ) -> tuple[list[int], list[int], list[float]]:
        """Which beams of a row live on, by which ids, and their sums."""
        count, length, texts = self.beams.count, self.ids.shape[2] + 1, self.texts[row]
        if texts.closed:
            return list(range(count)), [self.policy.pad] * count, [0.0] * count
        alive: list[tuple[int, int, float]] = []
        for rank, (total, parent, number) in enumerate(zip(sums, parents, new, strict=True)):
            if number != self.policy.end:
                alive.append((parent, number, total))
            elif rank < count:  # the end counts, or the start in its place
                texts.add(self._score(total, length), self._whole(row, parent))
            if len(alive) == count:
                break
        texts.close(self._score(sums[0], length))
        kept, ids, left = zip(*alive, strict=True)
        return list(kept), list(ids), list(left)

    def _whole(self, row: int, parent: int) -> Tensor:
        end = torch.tensor([self.policy.end], device=self.ids.device)
        return torch.cat([self.ids[row, parent], end])

    def read(self) -> None:
        """Let the model read the new ids."""
        self.reader.shuffle(self.origin.flatten())
        self.reader.read(self.ids[..., -1:].flatten(0, 1))

    def done(self) -> Generated:
        """The best text of each row; where the search was not over, beams without an end compete too."""
        length = self.ids.shape[2] + int(self.beams.counts_start)
        for row, texts in enumerate(self.texts):
            for beam in range(0 if texts.closed else self.beams.count):
                texts.add(self._score(float(self.sums[row, beam]), length), self.ids[row, beam])
        best = [texts.found[0][1] for texts in self.texts]
        lengths = torch.tensor([len(one) for one in best], device=self.ids.device)
        return Generated(torch.nn.utils.rnn.pad_sequence(best, True, self.policy.pad), lengths)
