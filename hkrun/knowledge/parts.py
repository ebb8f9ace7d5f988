"""The parts of a teacher's knowledge that a table can hold: each a vector per view of an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hkrun.losses import read_stages
from hkrun.models import Output


@dataclass(frozen=True)
class Layout:
    """How a network's output lies in the rows of a table.

    Attributes:
        parts: Names of the parts, of `hkrun.terms.COMPACT_PARTS`.
        widths: Numbers in a row of each part.
        map_sizes: Height and width of each stage's attention map.
        tap: Where stages are read for attention maps, as `knowledge.tap`.
    """

    parts: tuple[str, ...]
    widths: Mapping[str, int]
    map_sizes: tuple[tuple[int, int], ...]
    tap: str

    @classmethod
    def of(cls, output: Output, parts: Sequence[str], *, tap: str) -> "Layout":
        """The layout of all outputs like this one."""
        sizes = tuple((maps.shape[-2], maps.shape[-1]) for maps in output.stages)
        bare = cls(tuple(parts), {}, sizes, tap)
        widths = {name: rows.shape[1] for name, rows in bare.take_apart(output).items()}
        return cls(tuple(parts), widths, sizes, tap)

    def take_apart(self, output: Output) -> dict[str, Tensor]:
        """The parts of an output of B images, [B, width] each."""
        return {part: self._take(part, output) for part in self.parts}

    def _take(self, part: str, output: Output) -> Tensor:
        if part == "attention_maps":
            stages = read_stages(output.stages, tap=self.tap, dtype=output.logits.dtype)
            return torch.cat([_summarise_attention(maps) for maps in stages], dim=1)
        rows: Tensor = getattr(output, part)
        return rows

    def put_together(self, parts: Mapping[str, Tensor], batch_shape: Sequence[int]) -> Output:
        """The output that parts, [R, width] each, make; what they do not tell is None.

        Args:
            parts: By name.
            batch_shape: Leading dimensions of the output's tensors, R images in all.
        """
        shaped = {name: rows.reshape(*batch_shape, -1) for name, rows in parts.items()}
        stages = None
        if "attention_maps" in shaped:
            areas = [height * width for height, width in self.map_sizes]
            maps = zip(torch.split(shaped.pop("attention_maps"), areas, dim=-1), self.map_sizes, strict=True)
            stages = tuple(flat.reshape(*batch_shape, 1, *size) for flat, size in maps)
        absent = dict.fromkeys(("logits", "knowledge", "descriptor", "stem"))
        return Output(**{**absent, **shaped}, stages=stages)  # type: ignore[arg-type]


def _summarise_attention(maps: Tensor) -> Tensor:
    """Features of one channel with the same attention map as those given, [B, C, H, W] -> [B, H * W].

    Attention transfer compares the mean squares over channels, scaled to length 1. Of the same features with
    one channel, whose square is that map, it sees no difference.
    """
    attention = maps.square().mean(dim=1).flatten(1)
    return nn.functional.normalize(attention, dim=1).sqrt()
