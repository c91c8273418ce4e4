"""Names of tensors, ours ↔ Hugging Face's: a family's ordered table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bothways.model.families.base import Family, Rename
from bothways.model.heads import HeadKind


@dataclass(frozen=True)
class NameTable:
    """The names of a model's tensors: those of its family's encoder and of one of its heads."""

    family: Family
    head: HeadKind

    @property
    def renames(self) -> tuple[Rename, ...]:
        """The first line that applies holds."""
        form = self.family.heads.get(self.head)
        return (*self.family.renames, *(form.renames if form else ()))

    def to_hugging_face(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under Hugging Face names, the family's prefix first; fused matrices are cut into views, tied ones
        left out. Of a bare encoder there is no prefix."""
        renamed: dict[str, Tensor] = {}
        for name, tensor in state.items():
            line, _, _ = self._line_of(name)
            if line is None or line.tied_to is None:
                theirs = self.their_names(name)
                turned = tensor.t() if self.is_transposed(name) else tensor
                renamed.update(zip(theirs, turned.chunk(len(theirs)), strict=True))
        if self.head not in ("encoder", "embedding"):
            return renamed
        return {name.removeprefix(f"{self.family.prefix}."): tensor for name, tensor in renamed.items()}

    def from_hugging_face(
        self, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Find the `wanted` tensors (our names) among Hugging Face names; also returns the names left unused.

        Accepts files with and without the family's prefix, and its older spellings.
        """
        modern = self.modern_names(state)
        theirs = {modern[name]: tensor for name, tensor in state.items()}
        found: dict[str, Tensor] = {}
        used: set[str] = set()
        for name in wanted:
            parts = self.their_names(name)
            if self.tied_to(name) is not None:
                used.update(parts)
            elif all(part in theirs for part in parts):
                tensor = theirs[parts[0]] if len(parts) == 1 else torch.cat([theirs[part] for part in parts])
                found[name] = tensor.t().contiguous() if self.is_transposed(name) else tensor
                used.update(parts)
        return found, [name for name in state if modern[name] not in used]

    def their_names(self, name: str) -> list[str]:
        """Hugging Face's name of a parameter of ours; several where ours is fused of theirs."""
        line, parameter, layer = self._line_of(name)
        if line is None:
            return [name]  # a head without a Hugging Face counterpart keeps its name
        return [theirs.replace("*", layer) + parameter for theirs in line.theirs]

    def tied_to(self, name: str) -> str | None:
        """Our name of the tensor that this parameter of ours is a second name of; None for others."""
        line, _, _ = self._line_of(name)
        return None if line is None else line.tied_to

    def is_transposed(self, name: str) -> bool:
        """Whether Hugging Face's matrix is ours with rows and columns exchanged."""
        line, parameter, _ = self._line_of(name)
        return line is not None and line.transposed and parameter == ".weight"

    def modern_names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """A file's names as the table spells them."""
        prefix = f"{self.family.prefix}."
        prefixed = any(name.startswith(prefix) for name in state)
        within = {part.removeprefix(prefix).split(".")[0] for part in self._encoder_names()}
        modern: dict[str, str] = {}
        for name in state:
            spelt = name
            for old, new in self.family.spellings:
                spelt = re.sub(old, new, spelt)
            bare = not prefixed and spelt.split(".")[0] in within
            modern[name] = f"{prefix}{spelt}" if bare else spelt
        return modern

    def layer_numbers(self, names: Mapping[str, object]) -> list[int]:
        """Of which layers a file has tensors, by names as the table spells them."""
        patterns = {
            re.escape(theirs).replace(r"\*", r"(\d{1,9})")
            for line in self.family.renames
            for theirs in line.theirs
            if "*" in theirs
        }
        numbers = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
        matches = [match for name in names if (match := numbers.match(name))]
        return sorted({int(next(group for group in match.groups() if group)) for match in matches})

    def holds_head(self, names: set[str]) -> bool:
        """Whether a file, by names as the table spells them, has every module of the head."""
        form = self.family.heads[self.head]
        modules = [line.theirs[0] for line in form.renames if line.tied_to is None]
        return all(module in names or f"{module}.weight" in names for module in modules)

    def _encoder_names(self) -> list[str]:
        """Their names behind the prefix: of the encoder, and of heads that belong to it, as BERT's pooler."""
        lines = [*self.family.renames, *(line for form in self.family.heads.values() for line in form.renames)]
        prefix = f"{self.family.prefix}."
        return [theirs for line in lines for theirs in line.theirs if theirs.startswith(prefix)]

    def _line_of(self, name: str) -> tuple[Rename | None, str, str]:
        """The line for a parameter of ours, what follows the module's name (`.weight`, or nothing), the layer's
        number."""
        number = re.search(r"\.layers\.(\d+)\.", name)
        pattern = re.sub(r"\.layers\.\d+\.", ".layers.*.", name)
        module, _, parameter = pattern.rpartition(".")
        layer = number[1] if number else ""
        for line in self.renames:
            if line.ours == pattern:
                return line, "", layer
            if line.ours == module:
                return line, f".{parameter}", layer
        return None, "", layer
