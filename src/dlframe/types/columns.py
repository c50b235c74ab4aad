"""Data are columns: declared once by fields, held by splits, handed out in batches. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dlframe.types.errors import DataError, nearest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Field:
    """What one column holds, by one sample of it.

    Attributes:
        kind: What it means: image, audio, tokens, series, class, box, number, category, value, item, or a kind of your own.
        dtype: NumPy name of the type of its values: "uint8".
        shape: Shape of one sample; None where a length varies, which only the first may.
        names: Names of the classes, in the order of their integers, or of the features.
        mean: Mean over the training samples of each channel or feature; images scaled to [0, 1].
        std: Standard deviation likewise.
        along: Another column, whose lengths this one shares.
    """

    kind: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    along: str = ""

    @property
    def ragged(self) -> bool:
        """Whether samples differ in length."""
        return None in self.shape


@dataclass(frozen=True)
class DataSpec:
    """What a model and a task have to know about the data.

    Attributes:
        name: Name of the data set.
        inputs: What a model is given, by column.
        targets: What it is to say, by column.
        fitted: Facts that were measured on the training split, as JSON: a vocabulary, counts.
    """

    name: str
    inputs: dict[str, Field]
    targets: dict[str, Field]
    fitted: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Field]:
        """Every column."""
        return {**self.inputs, **self.targets}

    @property
    def input(self) -> Field:
        """The only input.

        Raises:
            DataError: There are several.
        """
        return self.inputs[_only(self.inputs, "input")]

    @property
    def target(self) -> Field:
        """The only target.

        Raises:
            DataError: There are several, or none.
        """
        return self.targets[_only(self.targets, "target")]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the only input: (channels, height, width) of an image, (time, features) of a series."""
        return self.input.shape  # type: ignore[return-value]  # a model of varying lengths does not ask

    @property
    def horizon(self) -> int:
        """Number of values in the only target: of a series, the steps ahead."""
        return self.target.shape[0]  # type: ignore[return-value]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the only class target, in the order of their integers; empty without one."""
        found = self.of_kind("class", self.targets)
        return self.targets[found[0]].names if len(found) == 1 else ()

    def of_kind(self, kind: str, among: dict[str, Field] | None = None) -> list[str]:
        """The columns of a kind, among all or among `inputs` or `targets`."""
        return [name for name, declared in (self.fields if among is None else among).items() if declared.kind == kind]


def _only(fields: dict[str, Field], role: str) -> str:
    if len(fields) != 1:
        raise DataError(f"data: one {role} is expected here. Received: {', '.join(fields) or 'none'}.")
    return next(iter(fields))


@dataclass(frozen=True, eq=False)
class Ragged:
    """Samples of varying length, concatenated: NumPy arrays in a split, tensors in a batch.

    Attributes:
        values: (elements, ...) of all samples.
        offsets: (samples + 1,) int64, ascending from 0: sample i is values[offsets[i] : offsets[i + 1]].
    """

    values: Any
    offsets: Any

    @classmethod
    def of(cls, samples: Sequence[np.ndarray]) -> Ragged:
        """Of NumPy arrays that differ in their first dimension only; at least one, which tells the type."""
        lengths = [len(sample) for sample in samples]
        return cls(np.concatenate(samples), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sample: int) -> Any:
        """The values of one sample, (length, ...)."""
        if not -len(self) <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        sample %= len(self)
        return self.values[self.offsets[sample] : self.offsets[sample + 1]]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> Any:
        """(samples,) int64."""
        return self.offsets[1:] - self.offsets[:-1]

    def take(self, index: np.ndarray) -> Ragged:
        """The samples at `index` (integers), in that order. For NumPy arrays."""
        lengths = self.lengths[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths)
        return Ragged(self.values[shift + np.arange(offsets[-1])], offsets)

    def padded(self, value: float = 0) -> tuple[Tensor, Tensor]:
        """For tensors: (samples, longest, ...), filled up with `value`, and the lengths (samples,)."""
        from torch.nn.utils.rnn import pad_sequence

        lengths = self.lengths
        if not len(self) or not int(lengths.max()):
            return self.values.new_full((len(self), 0, *self.values.shape[1:]), value), lengths
        # Views, padded by one call: three times faster than writing through a mask.
        return pad_sequence(self.values.split(lengths.tolist()), batch_first=True, padding_value=value), lengths

    def like(self, values: Any) -> Ragged:
        """Other values, (elements, ...), with the lengths of these samples."""
        return Ragged(values, self.offsets)


@dataclass(frozen=True, eq=False)
class Lazy:
    """Samples that are read when a batch needs them.

    Attributes:
        read: Gives the array of a sample from its item and, where `random`, a generator of random numbers, which depends on
            the run's seed, the epoch and the sample alone: the order in which samples are read does not matter.
        items: (samples,) strings or integers that tell `read` what to read.
        version: Text that changes when the content behind `items` does, such as a checksum; part of the fingerprint.
        lengths: (samples,) int64, of samples of varying length; None where all have the shape of the field.
        python: Whether reading is bound by Python code: it is then done by processes, not by threads.
        random: Whether `read` takes a generator. Making one costs 10 microseconds, a fifth of reading a small file.
    """

    read: Callable[..., np.ndarray]
    items: np.ndarray
    version: str
    lengths: np.ndarray | None = None
    python: bool = False
    random: bool = True

    def __len__(self) -> int:
        return len(self.items)

    def take(self, index: np.ndarray) -> Lazy:
        """The samples at `index` (integers), in that order."""
        return replace(self, items=self.items[index], lengths=None if self.lengths is None else self.lengths[index])


Column = np.ndarray | Ragged | Lazy


def taken(column: Column, index: np.ndarray) -> Column:
    """The samples of a column at `index` (integers), in that order."""
    return column[index] if isinstance(column, np.ndarray) else column.take(index)


@dataclass
class Split:
    """Samples in memory, in a memory map, or read when needed.

    Attributes:
        columns: By the names of the spec; a dense one is (samples, ...).
        ids: (samples,) strings or integers that name a sample for good.
        labelled: (samples,) bool, whether a sample's targets may be used; None where all may.
        groups: (samples,) strings or integers; samples of one group (a photo, a patient, a day) depend on one another, are
            kept on one side of a split, and are resampled together. None where samples are independent.
    """

    columns: dict[str, Column]
    ids: np.ndarray
    labelled: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Any:
        """The column of that name."""
        if name not in self.columns:
            raise DataError(f"data: there is no column '{name}'.{nearest(name, self.columns)}")
        return self.columns[name]

    def take(self, index: np.ndarray) -> Split:
        """The samples at `index` (integers), in that order."""
        columns = {name: taken(column, index) for name, column in self.columns.items()}
        masks = (None if array is None else array[index] for array in (self.labelled, self.groups))
        return Split(columns, self.ids[index], *masks)


PARTS = ("train", "validation", "test")


@dataclass
class Dataset:
    """A data set, split. `source` says where it came from and `splits` how it was split, for the first line of a run."""

    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    source: str
    splits: str

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of SHA-256 over every value, length, mask and group of every split.

        Of a column that is read when needed, over its items and its version.
        """
        digest = hashlib.sha256()

        def add(array: np.ndarray) -> None:
            if array.dtype == object:
                raise DataError(f"data={self.spec.name}: an array of Python objects has no fingerprint; use Ragged or text.")
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")

        for split in (self.train, self.validation, self.test):
            for name in self.spec.fields:
                match split[name]:
                    case Ragged(values=values, offsets=offsets):
                        add(values)
                        add(offsets)
                    case Lazy(items=items, version=version, lengths=lengths):
                        add(items)
                        digest.update(version.encode())
                        if lengths is not None:
                            add(lengths)
                    case array:
                        add(array)
            for array in (split.labelled, split.groups):
                if array is not None:
                    add(array)
        return digest.hexdigest()[:12]


@dataclass
class Batch:
    """Samples on the device.

    Attributes:
        columns: By name, tensors (batch, ...) or `Ragged` tensors. Where an augmentation has mixed labels, a class target is
            (batch, classes) fractions.
        index: (batch,) int64 positions in the split.
        spec: What the columns are.
        labelled: (batch,) bool, whether a sample's targets may be used; None where all may.
    """

    columns: dict[str, Tensor | Ragged]
    index: Tensor
    spec: DataSpec
    labelled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, name: str) -> Any:
        """The column of that name."""
        return self.columns[name]

    @property
    def inputs(self) -> Any:
        """The only input."""
        return self.columns[_only(self.spec.inputs, "input")]

    @property
    def targets(self) -> Any:
        """The only target."""
        return self.columns[_only(self.spec.targets, "target")]

    def replace(self, **columns: Tensor | Ragged) -> Batch:
        """The batch with other columns, by name; `inputs` and `targets` stand for the only one of each."""
        for role, fields in (("inputs", self.spec.inputs), ("targets", self.spec.targets)):
            if role in columns:
                columns[_only(fields, role)] = columns.pop(role)
        return replace(self, columns={**self.columns, **columns})
