"""The decoding loop: prompts in, ids out, by any causal decoder with a cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from multimodal_zoo.generation.guidance import guide, guide_log_probabilities
from multimodal_zoo.generation.penalties import Penalties
from multimodal_zoo.generation.policies import FREE, Policy, allow
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.sampling import Sampling, Schedule, at_step, check_schedule, row_numbers, row_seeds
from multimodal_zoo.generation.undisturbed import undisturbed
from multimodal_zoo.nn.cache import KVCache
from multimodal_zoo.nn.masks import Mask, Padding


class Decoder(Protocol):
    """What the loop needs of a model: `decoders.causal_decoder.CausalDecoder` is one."""

    max_positions: int

    def cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache."""
        ...

    def __call__(
        self,
        inputs: Tensor,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Mask | None = None,
        places: Tensor | None = None,
        vision: Tensor | None = None,
    ) -> Tensor:
        """Hidden states."""
        ...

    def head(self, hidden: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """Logits."""
        ...


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a batch is.

    Attributes:
        ids: long (rows, steps so far), padding behind the end of a row.
        limit: most steps.
    """

    ids: Tensor
    limit: int


@dataclass(frozen=True, eq=False)
class Generated:
    """What came.

    Attributes:
        ids: long (rows, steps), padding behind the end of each row.
        lengths: long (rows,), ids of each row with the one that ends it.
        scores: step -> float32 (rows, vocab_size) that the id was chosen from, for the steps asked for.
    """

    ids: Tensor
    lengths: Tensor
    scores: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """How scores are made from the states of the model.

    Attributes:
        guidance: scale of classifier-free guidance, one number or one for each step; 1 everywhere needs no second
            branch, and none is computed. None: no guidance, the scores are logits.
        exact: compute the scores of the whole vocabulary at every step, guided as log-probabilities, as the published
            script does. The ids are drawn with the same probabilities, several times slower.
        keep: steps whose scores are returned; needs `exact`.
        penalties: what the ids of a row change; None for nothing.
    """

    guidance: Schedule | None = None
    exact: bool = False
    keep: Collection[int] = ()
    penalties: Penalties | None = None

    def __post_init__(self) -> None:
        if self.guidance is not None:
            check_schedule(self.guidance, "guidance", positive=False)
        if self.keep and not self.exact:
            raise ValueError("scores are kept of the whole vocabulary: keep needs exact=True")

    @property
    def guided(self) -> bool:
        """Whether any step needs the second branch."""
        if self.guidance is None or isinstance(self.guidance, (int, float)):
            return self.guidance not in (None, 1)
        return any(scale != 1 for scale in self.guidance)


class Reader:
    """A batch of rows that a decoder reads bit by bit, over one cache that is filled in place.

    Equal prompts are read once. Rows of unequal length keep their own positions, and padding is never seen.

    Args:
        decoder: the model.
        prompts: what comes first.
        more: tokens that will be read behind it, at most.
        beginning: the cache of one row, of what all prompts go on from; None where nothing was read before them.

    Attributes:
        state: `(rows, width)`, of the last token of each row.
        start: tokens of the longest prompt, its beginning among them; what is read behind it begins there.

    Raises:
        ValueError: more tokens than the decoder has positions.
    """

    def __init__(self, decoder: Decoder, prompts: PromptBatch, more: int, beginning: KVCache | None = None) -> None:
        known, tokens = 0 if beginning is None else len(beginning), prompts.inputs.shape[1]
        self.start = known + tokens
        if self.start + more > decoder.max_positions:
            raise ValueError(
                f"a prompt of {self.start} tokens and {more} read behind it are {self.start + more}; "
                f"decoder.max_positions is {decoder.max_positions}"
            )
        once, which = prompts.distinct()
        repeated = len(once) < len(prompts)
        once = once if repeated else prompts
        padded, device = not bool(prompts.real.all()), prompts.inputs.device
        capacity = self.start + (0 if repeated else more)
        zeros = torch.zeros(len(once), dtype=torch.long, device=device)
        first = decoder.cache(len(once), capacity) if beginning is None else beginning.taken(zeros, capacity)
        last = torch.full((len(once), 1), tokens - 1, device=device)
        positions, mask = None, None
        if padded:
            positions, mask = once.positions + known, Padding(pad(once.real, (known, 0), value=True))
        state = decoder(once.inputs, cache=first, positions=positions, mask=mask, places=last, vision=once.vision)
        self.decoder, self.state = decoder, state[which, 0] if repeated else state[:, 0]
        self.cache = first.taken(which, self.start + more) if repeated else first
        self.real = pad(prompts.real, (known, more), value=True) if padded else None
        self.next = known + prompts.lengths[:, None]

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows alone, or with some more than once, as beams do.

        Args:
            rows: long (n,), the row that each of the new ones is.
        """
        self.cache = self.cache.taken(rows, self.cache.block.shape[-2])
        self.state, self.next = self.state[rows], self.next[rows]
        self.real = None if self.real is None else self.real[rows]

    def shuffle(self, rows: Tensor) -> None:
        """Put rows of equal prompts in another order.

        Args:
            rows: long (rows,), the row that each becomes; it has the same prompt.
        """
        self.cache.shuffle(rows, self.start)

    def read(self, ids: Tensor) -> None:
        """Go on with ids (rows, n), or embeddings (rows, n, width).

        `state` (rows, width) is then that of the last one; none of them leave it as it is.
        """
        if not ids.shape[1]:
            return
        tokens, mask, positions = ids.shape[1], None, None
        if self.real is not None:
            positions = self.next + torch.arange(tokens, device=ids.device)
            mask = Padding(self.real[:, : len(self.cache) + tokens])
            self.next = self.next + tokens
        self.state = self.decoder(ids, cache=self.cache, positions=positions, mask=mask)[:, -1]


def generate(
    decoder: Decoder,
    prompts: PromptBatch,
    policy: Policy,
    *,
    negative: PromptBatch | None = None,
    sampling: Sampling | None = None,
    scoring: Scoring | None = None,
    seeds: Sequence[int] | None = None,
    on_token: Callable[[Progress], None] | None = None,
) -> Generated:
    """Ids behind prompts, all rows at once; every row comes out as it would alone.

    Both branches of guidance are rows of one batch: a step reads the weights once. Given ids cost no output layer and
    are read together with the next one that is drawn; only the ids that can be drawn are scored.

    Args:
        decoder: the model, in evaluation mode.
        prompts: (rows, tokens).
        policy: what may come.
        negative: the prompts that guidance leads away from, one for each row, of any lengths.
        sampling: how ids are chosen; None draws with the probabilities of the model.
        scoring: guidance, and how scores are computed; None for no guidance.
        seeds: one for each row; None for 0, 1, 2, ...
        on_token: called after every step.

    Raises:
        ValueError: more tokens than positions, before anything is computed; negative prompts or seeds that do not fit.
    """
    sampling, scoring, rows = sampling or Sampling(), scoring or Scoring(), len(prompts)
    dice = row_seeds(seeds, rows)
    _check(rows, negative, scoring)
    with undisturbed(decoder):
        branches = negative.under(prompts) if scoring.guided and negative is not None else prompts
        found = _generated(decoder, branches, policy.to(prompts.inputs.device), sampling, scoring, dice, on_token)
    ids, lengths, kept = found
    return Generated(ids.clone(), lengths.clone(), {step: scores.clone() for step, scores in kept.items()})


def _generated(
    decoder: Decoder,
    branches: PromptBatch,
    policy: Policy,
    sampling: Sampling,
    scoring: Scoring,
    seeds: Sequence[int],
    on_token: Callable[[Progress], None] | None,
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """Ids, lengths and kept scores of `generate`; the rows of both branches of guidance lie below each other."""
    rows, device = len(seeds), branches.inputs.device
    reader = Reader(decoder, branches, policy.limit - 1 if scoring.exact else policy.read)
    numbers = None if sampling.greedy else row_numbers(seeds, policy.limit, device)
    ids = torch.full((rows, policy.limit), policy.pad, device=device)
    ended, kept, unread, step = torch.zeros_like(ids[:, 0], dtype=torch.bool), {}, 0, 0
    for step in range(policy.limit):
        forced, draws = policy.at(step)
        if draws or scoring.exact:
            new = ids[:, unread:step]
            reader.read(new if len(branches) == rows else new.repeat(len(branches) // rows, 1))
            unread = step
            scores, first = _scores(reader, policy, scoring, ids, step)
            if step in scoring.keep:
                kept[step] = scores
            chosen = first + sampling.choose(scores, None if numbers is None else numbers[:, step], step)
            chosen = chosen if forced is None else torch.where(forced == FREE, chosen, forced)
        else:
            chosen = forced  # type: ignore[assignment]
        if policy.end is not None:
            chosen = torch.where(ended, policy.pad, chosen)
            ended |= chosen == policy.end
        ids[:, step] = chosen
        if on_token is not None:
            on_token(Progress(ids[:, : step + 1], policy.limit))
        if policy.end is not None and bool(ended.all()):
            break
    ids = ids[:, : step + 1]
    return ids, _lengths(ids, policy), kept


def _check(rows: int, negative: PromptBatch | None, scoring: Scoring) -> None:
    if scoring.guided and negative is None:
        raise ValueError(f"guidance is {scoring.guidance}, and there are no negative prompts; give some, or guidance=1")
    if negative is not None and len(negative) != rows:
        raise ValueError(f"{len(negative)} negative prompts for {rows} prompts; give one for each")


def _scores(reader: Reader, policy: Policy, scoring: Scoring, ids: Tensor, step: int) -> tuple[Tensor, int]:
    """Scores (rows, n) of the ids that can be drawn, or of all with -inf at the others, and the first of these ids."""
    rows = len(ids)
    wanted, forced = None if scoring.exact else policy.rows, policy.at(step).forced
    logits = reader.decoder.head(reader.state, rows=wanted)
    if scoring.guidance is not None and (scoring.guided or scoring.exact):
        conditional, unconditional = logits[:rows], logits[rows:] if scoring.guided else None
        scale = at_step(scoring.guidance, step)
        if scoring.exact:
            logits = guide_log_probabilities(conditional, unconditional, scale)
        elif unconditional is not None:
            logits = guide(conditional, unconditional, scale)
    if scoring.exact:
        logits = allow(logits, policy.rows, forced)
    first = 0 if wanted is None else wanted.start
    if scoring.penalties is not None:
        logits = scoring.penalties(logits.float(), ids[:, :step], policy.end, first)
    return logits, first


def _lengths(ids: Tensor, policy: Policy) -> Tensor:
    """Ids of each row up to its padding; a padding id that was drawn as text counts."""
    if policy.end is None:
        return (ids != policy.pad).sum(1)
    ends = ids == policy.end
    first = ends.long().argmax(1) + 1
    return torch.where(ends.any(1), first, ids.shape[1])
