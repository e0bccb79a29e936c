"""Samples completions: each distinct prompt is read once, finished rows leave, and waiting ones take their slots.

A row's tokens depend on its prompt, its name and the weights alone (`sampling`): neither the wave's size nor who else
is alive changes them, up to the rounding of matrix products of another size.

On a card the host queues work ahead. It waits only for a look at who is finished, every GPU_CHECK_EVERY tokens, and for
the tokens of those.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from lowmem_rl.engine.decoder import Decoder, KVCache, prefill, step
from lowmem_rl.engine.repetition_stop import LONGEST_PERIOD, WINDOW, is_looping
from lowmem_rl.engine.sampling import SamplingParams, sample_token, uniform_noise
from lowmem_rl.engine.upload import upload

PREFILL_TOKENS = 8192
"""Most prompt tokens, padding included, in one forward, whose activations take the room of few rows' caches."""
READ_AHEAD_TOKENS = 1024
"""Most prompt tokens that are read before their rows have slots: in a 7B model 56 MiB of keys and values.

Slots come free one by one, and a forward of one short prompt takes as long as one of many.
"""
GPU_CHECK_EVERY, CPU_CHECK_EVERY = 8, 1
"""Tokens between two looks at who is finished: on a GPU each look waits for all queued work."""


Key = tuple[tuple[int, ...], int]
"""A prompt, and what tells apart equal ones that are to be read apart."""


@dataclass(frozen=True, slots=True)
class SampledCompletion:
    """A completion: its ids, a stop id last unless the limit cut it off, and the log-probability of each."""

    ids: list[int]
    log_probs: list[float]


@dataclass(frozen=True, slots=True)
class StoppingCriteria:
    """What ends a completion, and how many rows may stand in memory together."""

    stop_ids: frozenset[int]
    max_tokens: int
    rows: int
    reads_once: bool = True
    """Equal prompts are read once; False for an ablation."""
    stops_loops: bool = False
    """A row that repeats itself is cut off as if at the limit (`loops`)."""
    leaves_early: bool = True
    """Finished rows leave at once instead of when the last one is; False for an ablation."""
    skipped: int = 0
    """Tokens that are left out at a row's start, zeros in its ids and in the cache: to measure memory, which the last
    tokens of a row show as well as all of them."""


def sample(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    params: SamplingParams,
    limits: StoppingCriteria,
    forced: Sequence[Sequence[int]] | None = None,
) -> list[SampledCompletion]:
    """Returns one completion a prompt, in order; `names` seed the rows' random streams. No prompt is empty.

    `forced` completions, which end in a stop id or at the limit, are read as if they were sampled: a replay.
    """
    found = dict(iter_completions(decoder, prompts, names, params, limits, forced))
    return [found[row] for row in range(len(prompts))]


@torch.inference_mode()  # around each resumption of the generator, never around what its caller does in between
def iter_completions(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    params: SamplingParams,
    limits: StoppingCriteria,
    forced: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[int, SampledCompletion]]:
    """Yields each prompt's number and completion, as `sample` returns them, when its row leaves."""
    yield from _ContinuousBatch(decoder, prompts, names, params, limits, forced).run()


class _ContinuousBatch:
    """The rows that are alive, in the first slots of a cache, and those that wait for a slot."""

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        names: Sequence[str],
        params: SamplingParams,
        limits: StoppingCriteria,
        forced: Sequence[Sequence[int]] | None,
    ) -> None:
        self.decoder, self.prompts, self.params, self.limits = decoder, prompts, params, limits
        device = decoder.device
        self.check_every = GPU_CHECK_EVERY if device.type == "cuda" else CPU_CHECK_EVERY
        width = limits.max_tokens + self.check_every  # a finished row goes on until someone looks
        self.keys = [(tuple(prompt), 0 if limits.reads_once else row) for row, prompt in enumerate(prompts)]
        self.waiting = _grouped(self.keys)
        self.slots = min(limits.rows, len(prompts))
        self.cache = KVCache(decoder, self.slots, max(map(len, prompts)) + width)
        self.noise = upload(uniform_noise(names, width), device)
        self.forced = None if forced is None else upload(_padded(forced, width), device)
        self.stop = upload(torch.tensor(sorted(limits.stop_ids)), device)
        self.seen = None if params.repetition_penalty == 1.0 else upload(_seen_so_far(prompts, width), device)
        self.ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(len(prompts), width, device=device)
        self.cut_at: dict[int, int] = {}
        """Tokens after which a looping row was cut off."""
        self.rows: list[int] = []
        """The row in each slot."""
        self.counts: list[int] = []
        """Tokens that each slot's row has."""
        self.on_device = torch.empty(3, 0, dtype=torch.long, device=device)
        """Row, number of tokens and place of the newest one, of each slot."""
        self.has_stopped = torch.empty(0, dtype=torch.bool, device=device)
        self.read: dict[Key, tuple[Tensor, Tensor]] = {}
        """Logits and keys and values of prompts of which rows still wait."""

    def run(self) -> Iterator[tuple[int, SampledCompletion]]:
        self._fill()
        steps = 0
        while self.rows:
            self._step()
            steps += 1
            if steps % self.check_every == 0:
                yield from self._results(self._dismiss(self._look()))
                self._fill()

    def _step(self) -> None:
        rows, counts, places = self.on_device
        everyone = range(len(self.rows))
        logits = step(self.decoder, self.ids[rows, counts - 1], places, self.cache, self._longest(everyone))
        self._take(slice(0, len(self.rows)), logits)

    def _take(self, slots: slice, logits: Tensor) -> None:
        """Gives each of `slots` its next token."""
        rows, counts, places = self.on_device[:, slots]
        forced = None if self.forced is None else self.forced[rows, counts]
        seen = None if self.seen is None else self.seen[rows, : self._longest(range(len(self.rows))[slots])]
        tokens, log_probs = sample_token(logits, self.noise[rows, counts], self.params, seen, forced)
        self.ids[rows, counts], self.log_probs[rows, counts] = tokens, log_probs
        if self.seen is not None:
            self.seen[rows, places + 1] = tokens
        self.has_stopped[slots] |= torch.isin(tokens, self.stop)
        self.on_device[1:, slots] += 1
        self.counts[slots] = [count + 1 for count in self.counts[slots]]

    def _longest(self, slots: Iterable[int]) -> int:
        """Returns the most tokens of these slots' rows, prompts included."""
        return max(len(self.prompts[self.rows[slot]]) + self.counts[slot] for slot in slots)

    def _look(self) -> list[bool]:
        """Returns which slots have stopped, those with looping rows included: one copy, for which the host waits.

        What a looping row has said stays, without a stop id.
        """
        due = self._due_for_loops()
        if not due:
            return list(self.has_stopped.tolist())
        looping = self._looping(due)
        stopped, loops = torch.stack((self.has_stopped, looping)).tolist()
        self.has_stopped |= looping
        self.cut_at |= {self.rows[slot]: self.counts[slot] for slot in due if loops[slot] and not stopped[slot]}
        return [one or other for one, other in zip(stopped, loops, strict=True)]

    def _due_for_loops(self) -> list[int]:
        """Returns the slots that are looked at by their own tokens, not by the wave's steps: who else is alive must not
        matter. A row has one when it enters, and `check_every` divides LONGEST_PERIOD: no count is passed over.
        """
        due = range(WINDOW + 1, self.limits.max_tokens, LONGEST_PERIOD) if self.limits.stops_loops else range(0)
        return [slot for slot, count in enumerate(self.counts) if count in due]

    def _looping(self, slots: list[int]) -> Tensor:
        """Says of every slot whether it is one of `slots` and its row is looping."""
        chosen = self._on_device(slots)
        rows, counts, _ = self.on_device.index_select(1, chosen)
        tails = self.ids[rows[:, None], counts[:, None] + torch.arange(-WINDOW, 0, device=self.ids.device)]
        return torch.zeros_like(self.has_stopped).index_copy_(0, chosen, is_looping(tails))

    def _dismiss(self, stopped: Sequence[bool]) -> list[int]:
        """Lets finished rows leave and returns them; the last slots move into the holes."""
        done = {i for i, has in enumerate(stopped) if has or self.counts[i] >= self.limits.max_tokens}
        if not done or not (self.limits.leaves_early or len(done) == len(self.rows)):
            return []
        left = [self.rows[slot] for slot in sorted(done)]
        alive = len(self.rows) - len(done)
        holes = sorted(slot for slot in done if slot < alive)
        movers = [slot for slot in range(alive, len(self.rows)) if slot not in done]
        if holes:
            self._move(movers, holes)
        del self.rows[alive:], self.counts[alive:]
        self.on_device, self.has_stopped = self.on_device[:, :alive], self.has_stopped[:alive]
        return left

    def _move(self, sources: list[int], targets: list[int]) -> None:
        source, target = self._on_device([sources, targets])
        self.cache.move(source, target, self._longest(sources))
        self.on_device[:, target] = self.on_device[:, source]
        self.has_stopped[target] = self.has_stopped[source]
        for old, new in zip(sources, targets, strict=True):
            self.rows[new], self.counts[new] = self.rows[old], self.counts[old]

    def _fill(self) -> None:
        """Gives free slots to waiting rows and samples the first token of each."""
        start = len(self.rows)
        entering = self.waiting[: self.slots - start]
        if not entering:
            return
        del self.waiting[: len(entering)]
        keys = [self.keys[row] for row in entering]
        if any(key not in self.read for key in keys):
            self._read([*keys, *self._next_keys()])
        logits = torch.stack([self.read[key][0] for key in keys])
        for slot, key in enumerate(keys, start):
            self.cache.put(slot, self.read[key][1])
        self._enter(entering)
        self._take(slice(start, len(self.rows)), logits)
        waiting = (self.keys[row] for row in self.waiting)
        self.read = {key: self.read[key] for key in takewhile(self.read.__contains__, waiting)}

    def _next_keys(self) -> Iterator[Key]:
        """Yields the prompts that get a slot next: no more than there are slots, nor many tokens."""
        tokens = 0
        for key in dict.fromkeys(self.keys[row] for row in self.waiting[: self.slots]):
            tokens += len(key[0])
            if tokens > READ_AHEAD_TOKENS:
                return
            yield key

    def _enter(self, rows: list[int]) -> None:
        """Appends slots for `rows`; the first token's place lies behind the prompt."""
        skipped = self.limits.skipped
        places = [len(self.prompts[row]) - 1 + skipped for row in rows]
        new = self._on_device([rows, [skipped] * len(rows), places])
        self.on_device = torch.cat((self.on_device, new), dim=1)
        self.has_stopped = torch.cat((self.has_stopped, self.has_stopped.new_zeros(len(rows))))
        self.rows += rows
        self.counts += [skipped] * len(rows)

    def _read(self, keys: Sequence[Key]) -> None:
        """Reads each prompt that has not been read yet."""
        for chunk in _chunks([key for key in dict.fromkeys(keys) if key not in self.read]):
            prompts = [prompt for prompt, _ in chunk]
            lengths = self._on_device([len(prompt) for prompt in prompts])
            ids = upload(_padded(prompts, max(map(len, prompts))), self.decoder.device)
            logits, kept = prefill(self.decoder, ids, lengths)
            for i, key in enumerate(chunk):
                # Views would keep the whole forward for as long as one of its prompts waits.
                self.read[key] = logits[i].clone(), kept[:, i, :, : len(prompts[i])].clone()
            del logits, kept  # or they live beside the next forward

    def _results(self, rows: list[int]) -> Iterator[tuple[int, SampledCompletion]]:
        if not rows:
            return
        stop, limit, chosen = self.limits.stop_ids, self.limits.max_tokens, self._on_device(rows)
        # One copy: the numbers' bits pass as integers.
        found = torch.stack((self.ids[chosen].int(), self.log_probs[chosen].view(torch.int32))).cpu()
        for row, ids, probs in zip(rows, found[0].tolist(), found[1].view(torch.float32).tolist(), strict=True):
            end = _end(ids, stop, self.cut_at.get(row, limit))
            yield row, SampledCompletion(ids[:end], probs[:end])

    def _on_device(self, numbers: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return upload(torch.tensor(numbers), self.decoder.device)


def _end(ids: Sequence[int], stop_ids: frozenset[int], max_tokens: int) -> int:
    return next((i + 1 for i in range(max_tokens) if ids[i] in stop_ids), max_tokens)


def _grouped(keys: Sequence[Key]) -> list[int]:
    """Returns the rows' numbers, those of one prompt together, so that its keys and values can be let go soon."""
    groups: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    return [row for rows in groups.values() for row in rows]


def _padded(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """Returns the rows with zeros behind them (rows, width)."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])


def _seen_so_far(prompts: Sequence[Sequence[int]], width: int) -> Tensor:
    """Returns the ids that the repetition penalty counts (rows, tokens).

    They are a prompt's, and its first one again in the places of `width` tokens more, which changes no set.
    """
    longest = max(map(len, prompts)) + width
    return torch.tensor([[*prompt, *prompt[:1] * (longest - len(prompt))] for prompt in map(list, prompts)])


def _chunks(keys: Sequence[Key]) -> Iterator[list[Key]]:
    """Yields prompts of similar length, at most PREFILL_TOKENS with their padding, or one alone."""
    chunk: list[Key] = []
    for key in sorted(keys, key=lambda key: len(key[0])):
        if chunk and (len(chunk) + 1) * len(key[0]) > PREFILL_TOKENS:
            yield chunk
            chunk = []
        chunk.append(key)
    if chunk:
        yield chunk
