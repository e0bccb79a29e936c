"""Units of memory in bytes: binary ones, as drivers count, and decimal ones, as data sheets do."""

MIB, GIB = 2**20, 2**30
MB, GB = 10**6, 10**9
