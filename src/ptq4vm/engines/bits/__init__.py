"""Binary networks in products of bits: how a file of theirs is laid out in memory, and the loops that compute it."""
