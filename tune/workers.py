"""The processes that train together: one, or those of ``accelerate launch``, each with a device of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Workers"]


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that train together, as accelerate made them: this one's rank, how many, and its device."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @classmethod
    def here(cls, *, cpu: bool = False) -> Workers:
        """Those of ``accelerate launch``, or this process alone; on a GPU where there is one, unless ``cpu``."""
        from accelerate import PartialState

        state = PartialState(cpu=cpu or not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes, str(state.device))

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        total: torch.Tensor = reduce(values, "sum")
        return total

    def joined(self, part: dict[int, Any]) -> dict[int, Any]:
        """The dictionaries of all processes in one."""
        if self.count == 1:
            return part
        from accelerate.utils import gather_object

        return dict(gather_object(list(part.items())))

    def wait(self) -> None:
        """Wait for all."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
