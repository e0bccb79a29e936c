"""Samples completions with continuous batching: finished rows leave, and waiting ones take their slots.

Each distinct prompt is read once. A row's tokens depend on its prompt, its random stream and the weights alone
(`sampling`): neither the number of slots nor the other rows change them, up to the rounding of matrix products of
another size. On a GPU the host queues work ahead; it waits only for a check of who has finished, every GPU_CHECK_EVERY
tokens, and for the tokens of those.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from lowmem_rl.engine.decoder import Decoder, KVCache, prefill, prefill_packed, step
from lowmem_rl.engine.kept_states import StateRecorder
from lowmem_rl.engine.repetition_stop import LONGEST_PERIOD, WINDOW, is_looping
from lowmem_rl.engine.sampling import SamplingParams, sample_token, uniform_noise
from lowmem_rl.engine.upload import upload
from lowmem_rl.memory.lowmem_sampler import CHECK_EVERY, PREFILL_TOKENS, READ_AHEAD_TOKENS

GPU_CHECK_EVERY, CPU_CHECK_EVERY = CHECK_EVERY, 1
"""Tokens between two checks of who has finished: on a GPU each check waits for all queued work."""

_PromptKey = tuple[tuple[int, ...], int]
"""A prompt's ids, and a number that separates equal prompts if each is to be read."""


@dataclass(frozen=True, slots=True)
class SampledCompletion:
    """A completion: its ids, a stop id last unless the limit cut it off, and the log-probability of each in nats."""

    ids: list[int]
    log_probs: list[float]


@dataclass(frozen=True, slots=True)
class StoppingCriteria:
    """What ends a completion, and how many rows may be in memory together."""

    stop_ids: frozenset[int]
    max_tokens: int
    rows: int
    reads_once: bool = True
    """Equal prompts are read once; False for an ablation."""
    stops_loops: bool = False
    """A row that repeats itself is cut off as if at the limit (`repetition_stop`)."""
    leaves_early: bool = True
    """Finished rows leave at once instead of with the last one; False for an ablation."""
    skipped: int = 0
    """Tokens left out at a row's start, zeros in its ids and in the cache: to measure memory, the last tokens of a row
    are enough."""


def sample(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    streams: Sequence[str],
    params: SamplingParams,
    limits: StoppingCriteria,
    forced: Sequence[Sequence[int]] | None = None,
    states: StateRecorder | None = None,
) -> list[SampledCompletion]:
    """Returns one completion a prompt, in order; `streams` name the rows' random streams. No prompt is empty.

    `forced` completions, which end in a stop id or at the limit, are read as if they were sampled: a replay. `states`
    collects what enters its layer.
    """
    found = dict(iter_completions(decoder, prompts, streams, params, limits, forced, states))
    return [found[row] for row in range(len(prompts))]


@torch.inference_mode()  # around each resumption of the generator, never around what its caller does in between
def iter_completions(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    streams: Sequence[str],
    params: SamplingParams,
    limits: StoppingCriteria,
    forced: Sequence[Sequence[int]] | None = None,
    states: StateRecorder | None = None,
) -> Iterator[tuple[int, SampledCompletion]]:
    """Yields each prompt's number and completion, as `sample` returns them, when its row leaves."""
    yield from _ContinuousBatch(decoder, prompts, streams, params, limits, forced, states).run()


@dataclass
class _ContinuousBatch:
    """The running rows, in the first slots of a KV cache, and those that wait for a slot.

    Shapes: R rows in all, S running ones, T ids of a row (`max_tokens`, and some until the next check).
    """

    decoder: Decoder
    prompts: Sequence[Sequence[int]]
    streams: Sequence[str]
    params: SamplingParams
    limits: StoppingCriteria
    forced: Sequence[Sequence[int]] | None
    states: StateRecorder | None = None

    def __post_init__(self) -> None:
        device, prompts, limits = self.decoder.device, self.prompts, self.limits
        self.check_every = GPU_CHECK_EVERY if device.type == "cuda" else CPU_CHECK_EVERY
        width = limits.max_tokens + self.check_every  # a finished row continues until the next check
        longest = max(map(len, prompts)) + width
        if self.states is not None:
            self.decoder = self.states.watched(self.decoder, len(prompts), width)
        self.keys = [(tuple(prompt), 0 if limits.reads_once else row) for row, prompt in enumerate(prompts)]
        # Rows of one prompt wait together, so that its keys and values can be freed soon.
        order = {key: number for number, key in enumerate(dict.fromkeys(self.keys))}
        self.waiting = sorted(range(len(prompts)), key=lambda row: order[self.keys[row]])
        self.slots = min(limits.rows, len(prompts))
        self.cache = KVCache(self.decoder, self.slots, longest)
        self.noise = upload(uniform_noise(self.streams, width), device)  # (R, T)
        self.forced_ids = None if self.forced is None else upload(_padded(self.forced, width), device)  # (R, T)
        self.stop = upload(torch.tensor(sorted(limits.stop_ids)), device)
        self.seen: Tensor | None = None
        """Ids that the repetition penalty counts (R, longest row): a prompt's, then its first id, which changes no set,
        until sampled ids replace it."""
        if self.params.repetition_penalty != 1.0:
            seen = [[*prompt, *[prompt[0]] * (longest - len(prompt))] for prompt in prompts]
            self.seen = upload(torch.tensor(seen), device)
        self.ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)  # (R, T)
        self.log_probs = torch.zeros(len(prompts), width, device=device)  # (R, T)
        self.cut_at: dict[int, int] = {}  # tokens after which a looping row was cut off
        self.rows: list[int] = []  # the row in each slot
        self.counts: list[int] = []  # tokens that each slot's row has
        # Of each slot its row, the row's number of tokens, and the position of the newest one (3, S).
        self.on_device = torch.empty(3, 0, dtype=torch.long, device=device)
        self.has_stopped = torch.empty(0, dtype=torch.bool, device=device)  # (S,)
        self.read: dict[_PromptKey, tuple[Tensor, Tensor]] = {}  # logits, keys and values of waiting rows' prompts

    def run(self) -> Iterator[tuple[int, SampledCompletion]]:
        self._fill()
        steps = 0
        while self.rows:
            if self.limits.max_tokens - self.limits.skipped > 1:  # else the prompts' logits gave all tokens
                self._read_token()
            steps += 1
            if steps % self.check_every == 0:
                if self.states is not None:
                    self.states.store_tokens(self.rows, self.counts)
                yield from self._results(self._remove_finished(self._check_stopped()))
                self._fill()
        if self.states is not None:
            self.states.finish(self.keys, self.limits.max_tokens)

    def _read_token(self) -> None:
        """Reads the newest token of each row and samples the next one."""
        rows, counts, positions = self.on_device
        longest = self._longest(range(len(self.rows)))
        logits = step(self.decoder, self.ids[rows, counts - 1], positions, self.cache, longest)
        if self.states is not None:
            self.states.read_token()
        self._append_token(slice(0, len(self.rows)), logits)

    def _append_token(self, slots: slice, logits: Tensor) -> None:
        """Samples the next token of each of `slots` from `logits` (slots, vocabulary)."""
        rows, counts, positions = self.on_device[:, slots]
        forced = None if self.forced_ids is None else self.forced_ids[rows, counts]
        seen = None if self.seen is None else self.seen[rows, : self._longest(range(len(self.rows))[slots])]
        tokens, log_probs = sample_token(logits, self.noise[rows, counts], self.params, seen, forced)
        self.ids[rows, counts], self.log_probs[rows, counts] = tokens, log_probs
        if self.seen is not None:
            self.seen[rows, positions + 1] = tokens
        self.has_stopped[slots] |= torch.isin(tokens, self.stop)
        self.on_device[1:, slots] += 1
        self.counts[slots] = [count + 1 for count in self.counts[slots]]

    def _longest(self, slots: Iterable[int]) -> int:
        """Returns the most tokens of these slots' rows, prompts included."""
        return max(len(self.prompts[self.rows[slot]]) + self.counts[slot] for slot in slots)

    def _check_stopped(self) -> list[bool]:
        """Returns which slots have stopped, those with looping rows included: one copy, for which the host waits.

        A looping row keeps its tokens so far, without a stop id. When a row is checked for loops depends on its own
        tokens alone, not on the other rows. It has one token when it enters, and `check_every` divides LONGEST_PERIOD:
        no count is missed.
        """
        checked = range(WINDOW + 1, self.limits.max_tokens, LONGEST_PERIOD) if self.limits.stops_loops else range(0)
        due = [slot for slot, count in enumerate(self.counts) if count in checked]
        if not due:
            return list(self.has_stopped.tolist())
        slots = self._upload(due)
        rows, counts, _ = self.on_device.index_select(1, slots)
        tails = self.ids[rows[:, None], counts[:, None] + torch.arange(-WINDOW, 0, device=self.ids.device)]
        looping = torch.zeros_like(self.has_stopped).index_copy_(0, slots, is_looping(tails))
        stopped, loops = torch.stack((self.has_stopped, looping)).tolist()
        self.has_stopped |= looping
        self.cut_at |= {self.rows[slot]: self.counts[slot] for slot in due if loops[slot] and not stopped[slot]}
        return [one or other for one, other in zip(stopped, loops, strict=True)]

    def _remove_finished(self, stopped: Sequence[bool]) -> list[int]:
        """Removes finished rows and returns them; rows in the last slots move into the free ones."""
        done = {i for i, has in enumerate(stopped) if has or self.counts[i] >= self.limits.max_tokens}
        if not done or not (self.limits.leaves_early or len(done) == len(self.rows)):
            return []
        finished = [self.rows[slot] for slot in sorted(done)]
        running = len(self.rows) - len(done)
        free = sorted(slot for slot in done if slot < running)
        movers = [slot for slot in range(running, len(self.rows)) if slot not in done]
        if free:
            source, target = self._upload([movers, free])
            self.cache.move(source, target, self._longest(movers))
            self.on_device[:, target] = self.on_device[:, source]
            self.has_stopped[target] = self.has_stopped[source]
            for old, new in zip(movers, free, strict=True):
                self.rows[new], self.counts[new] = self.rows[old], self.counts[old]
        del self.rows[running:], self.counts[running:]
        self.on_device, self.has_stopped = self.on_device[:, :running], self.has_stopped[:running]
        return finished

    def _fill(self) -> None:
        """Gives free slots to waiting rows and samples the first token of each."""
        start = len(self.rows)
        entering = self.waiting[: self.slots - start]
        if not entering:
            return
        del self.waiting[: len(entering)]
        keys = [self.keys[row] for row in entering]
        if any(key not in self.read for key in keys):
            self._read_prompts([*keys, *self._next_keys()])
        logits = torch.stack([self.read[key][0] for key in keys])
        for slot, key in enumerate(keys, start):
            self.cache.put(slot, self.read[key][1])
        skipped = self.limits.skipped
        positions = [len(self.prompts[row]) - 1 + skipped for row in entering]  # the first token's is the next one
        new = self._upload([entering, [skipped] * len(entering), positions])
        self.on_device = torch.cat((self.on_device, new), dim=1)
        self.has_stopped = torch.cat((self.has_stopped, self.has_stopped.new_zeros(len(entering))))
        self.rows += entering
        self.counts += [skipped] * len(entering)
        self._append_token(slice(start, len(self.rows)), logits)
        waiting = (self.keys[row] for row in self.waiting)
        self.read = {key: self.read[key] for key in takewhile(self.read.__contains__, waiting)}

    def _next_keys(self) -> Iterator[_PromptKey]:
        """Yields the prompts that get a slot next: at most as many as there are slots, and READ_AHEAD_TOKENS.

        Slots come free one by one, and a forward of one short prompt takes as long as one of many. In a 7B model 1024
        tokens are 56 MiB of keys and values.
        """
        tokens = 0
        for key in dict.fromkeys(self.keys[row] for row in self.waiting[: self.slots]):
            tokens += len(key[0])
            if tokens > READ_AHEAD_TOKENS:
                return
            yield key

    def _read_prompts(self, keys: Sequence[_PromptKey]) -> None:
        """Reads each prompt that has not been read yet."""
        new = [key for key in dict.fromkeys(keys) if key not in self.read]
        if self.states is None and self.limits.reads_once and self.decoder.device.type == "cpu":
            beginning = shared_beginning([prompt for prompt, _ in new])
            packs = list(_packs(new, beginning))
            # On a GPU a forward of few tokens takes as long as one of many.
            if beginning >= LEAST_BEGINNING and beginning * (len(new) - len(packs)) >= LEAST_SAVED:
                self._read_packed(packs, beginning)
                return
        for chunk in _chunks(new):
            prompts = [prompt for prompt, _ in chunk]
            lengths = self._upload([len(prompt) for prompt in prompts])
            ids = upload(_padded(prompts, max(map(len, prompts))), self.decoder.device)
            logits, kept = prefill(self.decoder, ids, lengths)
            if self.states is not None:
                self.states.read_prompts(chunk, list(map(len, prompts)))
            for i, key in enumerate(chunk):
                # Views would keep the whole forward for as long as one of its prompts waits.
                self.read[key] = logits[i].clone(), kept[:, i, :, : len(prompts[i])].clone()
            del logits, kept  # before the next forward needs their memory

    def _read_packed(self, packs: Iterable[Sequence[_PromptKey]], beginning: int) -> None:
        """Reads packs of prompts that have their first `beginning` ids in common: those once a pack."""
        for pack in packs:
            own = [prompt[beginning:] for prompt, _ in pack]
            logits, kept = prefill_packed(self.decoder, pack[0][0][:beginning], own)
            first, *parts = kept.split([beginning, *map(len, own)], dim=2)
            for key, row, part in zip(pack, logits, parts, strict=True):
                self.read[key] = row.clone(), torch.cat((first, part), dim=2)

    def _results(self, rows: list[int]) -> Iterator[tuple[int, SampledCompletion]]:
        if not rows:
            return
        chosen = self._upload(rows)
        # One copy: the bits of the log-probs pass as integers.
        found = torch.stack((self.ids[chosen].int(), self.log_probs[chosen].view(torch.int32))).cpu()
        for row, ids, probs in zip(rows, found[0].tolist(), found[1].view(torch.float32).tolist(), strict=True):
            most = self.cut_at.get(row, self.limits.max_tokens)
            end = next((i + 1 for i in range(most) if ids[i] in self.limits.stop_ids), most)
            yield row, SampledCompletion(ids[:end], probs[:end])

    def _upload(self, numbers: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return upload(torch.tensor(numbers), self.decoder.device)


LEAST_BEGINNING, LEAST_SAVED = 16, 64
"""Ids that prompts must have in common, and that are then read less often, for packs to be worth their masks."""
PACKED_TOKENS = 512
"""In a pack attention compares each token with each: with more its square would count."""


def shared_beginning(prompts: Sequence[tuple[int, ...]]) -> int:
    """Returns how many ids all prompts begin with, as a chat template's system turn. Each keeps an id of its own."""
    if not prompts:
        return 0
    first, last = min(prompts), max(prompts)  # in the order of tuples all others are between these
    most = min(map(len, prompts)) - 1
    return next((i for i in range(most) if first[i] != last[i]), most)


def _packs(keys: Sequence[_PromptKey], beginning: int) -> Iterator[list[_PromptKey]]:
    """Yields prompts that are read in one row: at most PACKED_TOKENS with their common beginning, or a longer one."""
    pack: list[_PromptKey] = []
    tokens = beginning
    for key in keys:
        own = len(key[0]) - beginning
        if pack and tokens + own > PACKED_TOKENS:
            yield pack
            pack, tokens = [], beginning
        pack.append(key)
        tokens += own
    if pack:
        yield pack


def _padded(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """Returns the rows, padded with zeros on the right (rows, width)."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])


def _chunks(keys: Sequence[_PromptKey]) -> Iterator[list[_PromptKey]]:
    """Yields prompts of similar length: at most PREFILL_TOKENS with their padding, or a single longer one.

    The activations of so many take the memory of few rows' caches.
    """
    chunk: list[_PromptKey] = []
    for key in sorted(keys, key=lambda key: len(key[0])):
        if chunk and (len(chunk) + 1) * len(key[0]) > PREFILL_TOKENS:
            yield chunk
            chunk = []
        chunk.append(key)
    if chunk:
        yield chunk
