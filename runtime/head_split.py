"""Which KV heads of a model are in this process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeadSplit:
    """This process' part of the KV heads of every layer.

    Args:
        part: Which of the parts it has, from 0; parts follow each other in the order of the heads.
        parts: Equal parts that there are; 1 for a model that is whole.
    """

    part: int = 0
    parts: int = 1

    def whole(self, heads: int) -> int:
        """Heads of the whole model, where so many are here."""
        return heads * self.parts

    def here(self, heads: int) -> slice:
        """Those that are here, of so many heads of the whole model."""
        number = heads // self.parts
        return slice(self.part * number, (self.part + 1) * number)


WHOLE = HeadSplit()
"""All heads, of a model that is in one process."""
