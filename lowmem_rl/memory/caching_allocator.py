"""PyTorch's caching allocator as arithmetic: which requests fit into cached blocks, and what the pool grows to.

The rules are those of torch 2.14 (c10/cuda/CUDACachingAllocator.cpp: `round_size`, `get_allocation_size`,
`should_split`, `get_free_block`, `try_merge_blocks`, `release_cached_blocks`; its constants in
c10/core/AllocatorConfig.h), on one stream and without settings other than `expandable_segments`.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from lowmem_rl.units import MIB

_LEAST_BLOCK = 512
"""Every size is a multiple of it (kMinBlockSize)."""
_SMALL = MIB
"""Largest request of the small pool; in the large one a remainder up to it is not split off (kSmallSize)."""
_SMALL_SEGMENT = 2 * MIB
_LARGE_SEGMENT, _OWN_SEGMENT = 20 * MIB, 10 * MIB
"""Large requests below 10 MiB share segments of 20 MiB; from there on each has its own."""
_ROUND_LARGE = 2 * MIB
_EDGE = 2**60
"""More than any address of a segment: segments never touch each other."""


@dataclass(slots=True, eq=False)
class Block:
    """A piece of a segment, in a chain with its neighbours."""

    size: int
    address: int
    is_small: bool
    is_free: bool = False
    before: "Block | None" = None
    after: "Block | None" = None


Free = tuple[int, int, Block]
"""A free block by size, then address: the order in which the best fit is found."""


@dataclass(slots=True)
class CachingAllocator:
    """The pool of one process on one card. Sizes in bytes."""

    expandable: bool = False
    capacity: int = _EDGE
    """What the pool may grow to; cached segments are given back before that."""
    allocated: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    _segments: int = 0
    _free: dict[bool, list[Free]] = field(default_factory=lambda: {True: [], False: []})
    _last: dict[bool, Block] = field(default_factory=dict)
    """The last block of each pool's expandable segment."""

    def allocate(self, size: int) -> Block:
        """Returns a block of at least that size. Raises `MemoryError` if the capacity is not enough."""
        size = -(-max(size, 1) // _LEAST_BLOCK) * _LEAST_BLOCK
        is_small = size <= _SMALL
        free = self._free[is_small]
        found = bisect_left(free, (size,))
        block = free.pop(found)[2] if found < len(free) else self._grown(size, is_small)
        block.is_free = False
        self._split(block, size)
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Puts a block back, joined with free neighbours of its segment."""
        self.allocated -= block.size
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.is_free:
                self._take(neighbour)
                self._join(block, neighbour)
        self._put(block)

    def _grown(self, size: int, is_small: bool) -> Block:
        if self.expandable:
            return self._extended(size, is_small)
        segment = _SMALL_SEGMENT if is_small else _LARGE_SEGMENT
        if size >= _OWN_SEGMENT:
            segment = -(-size // _ROUND_LARGE) * _ROUND_LARGE
        self._reserve(segment)
        self._segments += 1
        return Block(segment, self._segments * _EDGE, is_small)

    def _extended(self, size: int, is_small: bool) -> Block:
        """Returns the end of the growing segment, made long enough by whole pages."""
        page, last = _SMALL_SEGMENT if is_small else _LARGE_SEGMENT, self._last.get(is_small)
        spare = last.size if last and last.is_free else 0
        pages = -(-(size - spare) // page) * page
        self._reserve(pages)
        if last and last.is_free:
            self._take(last)
            last.size += pages
            return last
        address = last.address + last.size if last else is_small * _EDGE
        block = Block(pages, address, is_small, before=last)
        if last:
            last.after = block
        self._last[is_small] = block
        return block

    def _reserve(self, size: int) -> None:
        if self.reserved + size > self.capacity:
            self._give_back()
        if self.reserved + size > self.capacity:
            raise MemoryError(f"{size} bytes more than {self.reserved} of {self.capacity}")
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _give_back(self) -> None:
        """Gives whole free segments back; of an expandable one all free blocks, whose pages are its own."""
        for free in self._free.values():
            for entry in list(free):
                block = entry[2]
                if not self.expandable and block.before is None and block.after is None:
                    free.remove(entry)
                    self.reserved -= block.size

    def _split(self, block: Block, size: int) -> None:
        rest = block.size - size
        if rest < _LEAST_BLOCK or not (block.is_small or self.expandable or rest > _SMALL):
            return
        tail = Block(rest, block.address + size, block.is_small, before=block, after=block.after)
        if block.after:
            block.after.before = tail
        block.after, block.size = tail, size
        if self._last.get(block.is_small) is block:
            self._last[block.is_small] = tail
        self._put(tail)

    def _join(self, block: Block, other: Block) -> None:
        if other is block.before:
            block.address, block.before = other.address, other.before
            if block.before:
                block.before.after = block
        else:
            block.after = other.after
            if block.after:
                block.after.before = block
        block.size += other.size
        if self._last.get(block.is_small) is other:
            self._last[block.is_small] = block

    def _put(self, block: Block) -> None:
        block.is_free = True
        insort(self._free[block.is_small], (block.size, block.address, block))

    def _take(self, block: Block) -> None:
        free = self._free[block.is_small]
        free.pop(bisect_left(free, (block.size, block.address)))
