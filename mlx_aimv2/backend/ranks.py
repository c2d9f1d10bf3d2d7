"""Ranks: the processes of one command that `mlx.launch` or `mpirun` has started together, on one or more machines.

Which rank this process is stands in environment variables, so a process that was started alone pays nothing for it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackendError

RING_HOSTS, RDMA_HOSTS = "MLX_HOSTFILE", "MLX_IBV_DEVICES"  # files in JSON, with an entry for each rank
# of MLX's NCCL backend, Open MPI, and MPICH: the variables with the rank, the number of ranks, and of those here
VARIABLES = (
    ("MLX_RANK", "MLX_WORLD_SIZE", ""),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
)


@dataclass(frozen=True)
class Ranks:
    """The ranks of a command, as this process sees them.

    Attributes:
        number: of this rank, from 0.
        size: how many ranks there are.
        here: how many of them are on this machine and share its cores.
    """

    number: int = 0
    size: int = 1
    here: int = 1

    def __bool__(self) -> bool:
        """Whether there is more than one rank."""
        return self.size > 1

    def gather(self, values: Sequence[int]) -> list[list[int]]:
        """Wait for all ranks; return the values of every rank, in the order of ranks. MLX ignores signals meanwhile.

        Raises:
            BackendError: the ranks cannot connect, or one of them has ended.
        """
        import mlx.core as mx

        try:
            group = mx.distributed.init(strict=True)
            if (group.rank(), group.size()) != (self.number, self.size):
                raise RuntimeError(f"this is rank {group.rank()} of {group.size()} for MLX")
            gathered = mx.distributed.all_gather(mx.array([list(values)], dtype=mx.int64), group=group)
            rows: list[list[int]] = gathered.tolist()  # type: ignore[assignment]  # of an array with two axes
            return rows
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise BackendError(f"rank {self.number} cannot reach the others ({reason})") from error


@functools.cache
def launched() -> Ranks:
    """The ranks of this command; one if nothing has launched several.

    Raises:
        BackendError: a launcher's variables contradict each other, or its file cannot be read.
    """
    try:
        if "MLX_RANK" in os.environ:
            number = int(os.environ["MLX_RANK"])
            for variable in (RING_HOSTS, RDMA_HOSTS):
                hosts = _hosts(os.environ.get(variable))
                if hosts:
                    ring = variable == RING_HOSTS
                    return _checked(number, len(hosts), _alike(hosts, number) if ring else 1)
        for rank, size, here in VARIABLES:
            if rank in os.environ and size in os.environ:
                count = int(os.environ[size])
                return _checked(int(os.environ[rank]), count, int(os.environ.get(here, 1)))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BackendError(f"the variables of mlx.launch cannot be read ({error}): launch again") from error
    return Ranks()


def ranks_here() -> int:
    """How many ranks share the cores of this machine, at least 1; also where the variables cannot be read."""
    try:
        return launched().here
    except BackendError:  # a verb that uses ranks reports it
        return 1


def _checked(number: int, size: int, here: int) -> Ranks:
    if not 0 <= number < size:
        raise ValueError(f"rank {number} of {size}")
    return Ranks(number, size, max(1, here))


def _hosts(file: str | None) -> list[list[str]]:
    """The entries of a launcher's file; the file is empty for a single rank."""
    text = Path(file).read_text(encoding="utf-8").strip() if file else ""
    hosts: list[list[str]] = json.loads(text) if text else []
    return hosts


def _alike(hosts: list[list[str]], number: int) -> int:
    """How many entries have the same address as that of this rank; an entry is a list of `address:port`."""
    addresses = [entry[0].rpartition(":")[0] for entry in hosts]
    return addresses.count(addresses[number])
