"""Continuations by beam search, as transformers finds them from 4.50 on, over the batches of `continuing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from multimodal_zoo.captions.engines.continuation import Continuation, Ending
from multimodal_zoo.captions.engines.continuing import LEAVE, Beginnings, begun
from multimodal_zoo.generation.loop import Decoder

#: Score of what cannot win: beams that do not exist yet, and those that are over but must go on.
NONE = -1e9


@dataclass(frozen=True)
class BeamRules:
    """How beams are searched; the defaults are those of the published script (3 beams, transformers' rules).

    Attributes:
        count: beams of each row.
        length_penalty: sums of log-probabilities are divided by the length to this power.

    Raises:
        ValueError: fewer than two beams.
    """

    count: int = 3
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"fusion_engine.beams is {self.count}; a search needs 2 or more")

    def score(self, total: float, length: int) -> float:
        """What texts of unequal lengths are compared by."""
        return total / length**self.length_penalty


@dataclass
class _Row:
    """One row's search.

    Attributes:
        alive: ids of the beams that go on, the best first.
        sums: log-probabilities of these.
        whole: score and text of those that are over, the best first.
        open: whether a better text can still come.
    """

    alive: list[list[int]]
    sums: list[float]
    whole: list[tuple[float, Continuation]] = field(default_factory=list)
    open: bool = True

    def step(self, found: Sequence[tuple[float, int, int]], ending: Ending, rules: BeamRules) -> list[tuple[int, int]]:
        """One token more for each beam.

        Of the candidates, the best first, those among the first `count` that end a text become whole; the best others
        go on. The search is over once no sum, at its present length, beats the worst of `count` whole texts.

        Args:
            found: sum, beam and token of each candidate.
            ending: when a text is over.
            rules: of the search.

        Returns:
            beam and token that each new beam comes from.
        """
        length, going, over = len(self.alive[0]) + 1, [], []
        for rank, (total, beam, token) in enumerate(found):
            ids = self.alive[beam].copy()
            ended = ending.over(token, ids)
            if ended or length == ending.limit:
                over.append((total + NONE, beam, token, [*self.alive[beam], token]))
                if rank < rules.count:
                    self.whole.append((rules.score(total, length), Continuation(ids, ended)))
            else:
                going.append((total, beam, token, ids))
        self.whole = sorted(self.whole, key=lambda one: -one[0])[: rules.count]
        some_go_on = bool(going)
        going = [*going, *over][: rules.count]
        self.alive, self.sums = [ids for *_, ids in going], [total for total, *_ in going]
        full = len(self.whole) == rules.count
        self.open = some_go_on and not (full and rules.score(self.sums[0], length) <= self.whole[-1][0])
        return [(beam, token) for _, beam, token, _ in going]


def continue_by_beams(
    decoder: Decoder,
    rows: Sequence[list[int]],
    ending: Ending,
    rules: BeamRules,
    beginnings: Beginnings | None = None,
) -> list[Continuation]:
    """The best continuation of each prompt that beam search finds, as each would have alone up to rounding.

    Prompts are read once for all their beams, and of the cache only what lies behind them is put in order. Rows whose
    search is over leave the batch.

    Args:
        decoder: the model, in evaluation mode; the caller switches gradients off.
        rows: prompts, none of them empty.
        ending: when a text is over.
        rules: of the search.
        beginnings: what prompts began with before; None reads every row whole.

    Raises:
        ValueError: more tokens than the decoder has positions, or an empty prompt.
        TimeoutError: `ending.deadline` is over.
    """
    if not rows:
        return []
    batch, count = begun(decoder, rows, ending.limit - 1, beginnings), rules.count
    device = batch.state.device
    batch.keep(torch.arange(len(rows), device=device).repeat_interleave(count))
    searches = [_Row([[] for _ in range(count)], [0.0, *[NONE] * (count - 1)]) for _ in rows]
    alive = list(range(len(rows)))  # the rows of the batch, those that are over among them
    wanted = max(2, 1 + len(ending.ends)) * count
    for _ in range(ending.limit):
        ending.check_time()
        origin, new = [], []
        candidates = _candidates(decoder.head(batch.state), [searches[number].sums for number in alive], wanted)
        for place, (number, found) in enumerate(zip(alive, candidates, strict=True)):
            search = searches[number]
            pairs = search.step(found, ending, rules) if search.open else [(beam, 0) for beam in range(count)]
            origin += [place * count + beam for beam, _ in pairs]
            new += [token for _, token in pairs]
        left = [place for place, number in enumerate(alive) if searches[number].open]
        if not left:
            break
        batch.shuffle(torch.tensor(origin, device=device))
        if len(left) <= (1 - LEAVE) * len(alive):
            kept = [place * count + beam for place in left for beam in range(count)]
            batch.keep(torch.tensor(kept, device=device))
            alive, new = [alive[place] for place in left], [new[place] for place in kept]
        batch.read(torch.tensor(new, device=device)[:, None])
    return [search.whole[0][1] for search in searches]


def _candidates(logits: Tensor, sums: Sequence[Sequence[float]], wanted: int) -> list[list[tuple[float, int, int]]]:
    """Sum, beam and token of the likeliest continuations of each row, the best first.

    Args:
        logits: `(rows * beams, vocab_size)`.
        sums: log-probabilities of each row's beams.
        wanted: candidates of each row.
    """
    rows, vocabulary = len(sums), logits.shape[-1]
    scores = logits.log_softmax(-1).view(rows, -1, vocabulary)
    scores += torch.tensor(sums, device=logits.device)[..., None]
    best, places = scores.flatten(1).topk(min(wanted, scores[0].numel()))
    return [
        [(total, place // vocabulary, place % vocabulary) for total, place in zip(*pair, strict=True)]
        for pair in zip(best.tolist(), places.tolist(), strict=True)
    ]
