"""One fit on several processes: how they are started, what they say to each other, which data each one sees."""

from sweepvi.distributed.distributed import Distributed, Parallel
from sweepvi.distributed.launch import Launch, launched
from sweepvi.distributed.none import NotDistributed
from sweepvi.distributed.ranks import Alone, LostRanksError, Ranks
from sweepvi.distributed.shards import Dealer, Shards
from sweepvi.distributed.streams import seed_rank

__all__ = [
    "Alone",
    "Dealer",
    "Distributed",
    "Launch",
    "LostRanksError",
    "NotDistributed",
    "Parallel",
    "Ranks",
    "Shards",
    "launched",
    "seed_rank",
]
