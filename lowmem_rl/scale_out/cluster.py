"""Where a run is to be continued: on which cards, of how many machines."""

from dataclasses import dataclass
from typing import Literal, get_args

from lowmem_rl.errors import ConfigError, UnknownName

TargetName = Literal["trl", "verl"]
MOST_CARDS_OF_TRL = 8
"""That one machine has: TRL is for cards in one box."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines with equal cards, and the trainer that runs on them."""

    to: TargetName
    gpus: int
    """Cards of each machine."""
    nodes: int
    name: str
    """Of the run there."""

    @property
    def cards(self) -> int:
        """Cards of all machines."""
        return self.gpus * self.nodes

    def __str__(self) -> str:
        cards = f"{self.gpus} card{'s' * (self.gpus > 1)}"
        return cards if self.nodes == 1 else f"{self.nodes} machines with {cards} each"


def cluster_of(to: str, gpus: int, nodes: int, name: str) -> Cluster:
    """Returns the cluster that a command line names. Raises `UnknownName` or `ConfigError`."""
    if to not in get_args(TargetName):
        raise UnknownName("target", to, get_args(TargetName))
    if to == "trl" and nodes > 1:
        raise ConfigError(f"--nodes {nodes}: TRL is for the cards of one machine.", hint="Use --to verl.")
    if to == "trl" and gpus > MOST_CARDS_OF_TRL:
        what = f"--gpus {gpus}: TRL is for at most {MOST_CARDS_OF_TRL} cards of one machine."
        raise ConfigError(what, hint="Use --to verl, with --nodes for further machines.")
    return Cluster(to, gpus, nodes, name)  # type: ignore[arg-type]  # checked
