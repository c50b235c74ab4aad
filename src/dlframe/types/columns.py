"""Columns of data, their fields, splits and batches; imports no torch."""

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
    """Declaration of a column, for one sample.

    Attributes:
        kind: Meaning: image, audio, tokens, series, class, box, number, category, value, item, or a custom kind.
        dtype: NumPy name of the value type: "uint8".
        shape: Shape of one sample; None for a varying length, of the first dimension only.
        names: Names of classes by index, or of features, or letters of tokens that are text.
        mean: Training mean of each channel or feature; images are scaled to [0, 1].
        std: Training standard deviation, as `mean`.
        along: Column with the same lengths.
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
        """Whether samples vary in length."""
        return None in self.shape

    @property
    def is_text(self) -> bool:
        """Whether the tokens are letters."""
        return self.kind == "tokens" and bool(self.names)


@dataclass(frozen=True)
class DataSpec:
    """Specification of the data for models and tasks.

    Attributes:
        name: Name of the data set.
        inputs: Input columns by name.
        targets: Target columns by name.
        fitted: Measurements on the training split, as JSON: a vocabulary, counts.
    """

    name: str
    inputs: dict[str, Field]
    targets: dict[str, Field]
    fitted: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Field]:
        """All columns."""
        return {**self.inputs, **self.targets}

    @property
    def input(self) -> Field:
        """The only input.

        Raises:
            DataError: The data have several inputs.
        """
        return self.inputs[_only(self.inputs, "input")]

    @property
    def target(self) -> Field:
        """The only target.

        Raises:
            DataError: The data have several targets, or none.
        """
        return self.targets[_only(self.targets, "target")]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the only input, such as (channels, height, width)."""
        return self.input.shape  # type: ignore[return-value]  # not used with varying lengths

    @property
    def horizon(self) -> int:
        """Number of values in the only target: the forecast steps of a series."""
        return self.target.shape[0]  # type: ignore[return-value]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the only class target, by index; empty without one."""
        found = self.of_kind("class", self.targets)
        return self.targets[found[0]].names if len(found) == 1 else ()

    @property
    def num_classes(self) -> int:
        """Number of classes of the only class target, as models of other packages take it."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Channels of the only input, an image."""
        return self.shape[0]

    @property
    def image_size(self) -> int:
        """Height of the only input, an image."""
        return self.shape[-2]

    def of_kind(self, kind: str, among: dict[str, Field] | None = None) -> list[str]:
        """Return the columns of a kind, of all columns or of `inputs` or `targets`."""
        return [name for name, declared in (self.fields if among is None else among).items() if declared.kind == kind]


def _only(fields: dict[str, Field], role: str) -> str:
    if len(fields) != 1:
        raise DataError(f"data: must have one {role} here. Received: {', '.join(fields) or 'none'}.")
    return next(iter(fields))


@dataclass(frozen=True, eq=False)
class Ragged:
    """Samples of varying length, concatenated, as NumPy arrays or tensors.

    Attributes:
        values: (elements, ...) of all samples.
        offsets: (samples + 1,) int64, ascending from 0: sample i is values[offsets[i] : offsets[i + 1]].
    """

    values: Any
    offsets: Any

    @classmethod
    def of(cls, samples: Sequence[np.ndarray]) -> Ragged:
        """Concatenate NumPy arrays that differ in the first dimension only."""
        lengths = [len(sample) for sample in samples]
        return cls(np.concatenate(samples), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sample: int) -> Any:
        """Return the values of one sample, (length, ...)."""
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
        """Return the samples at integers `index`, in that order; for NumPy arrays."""
        lengths = self.lengths[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths)
        return Ragged(self.values[shift + np.arange(offsets[-1])], offsets)

    def padded(self, value: float = 0) -> tuple[Tensor, Tensor]:
        """Return padded tensors (samples, longest, ...) and lengths (samples,)."""
        from torch.nn.utils.rnn import pad_sequence

        lengths = self.lengths
        if not len(self) or not int(lengths.max()):
            return self.values.new_full((len(self), 0, *self.values.shape[1:]), value), lengths
        # Padding views is three times faster than writing through a mask.
        return pad_sequence(self.values.split(lengths.tolist()), batch_first=True, padding_value=value), lengths

    def like(self, values: Any) -> Ragged:
        """Return other values, (elements, ...), with the same lengths."""
        return Ragged(values, self.offsets)


@dataclass(frozen=True, eq=False)
class Lazy:
    """Samples that are read on demand.

    Attributes:
        read: Function from an item, and if `random` a random generator, to the array of a sample. The generator depends on
            the run's seed, the epoch and the sample only, not on the reading order.
        items: (samples,) strings or integers, arguments of `read`.
        version: Text that changes with the content of the items, such as a checksum; part of the fingerprint.
        lengths: (samples,) int64, for samples of varying length; else None.
        python: Whether reading is bound by Python code, and needs processes instead of threads.
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
        """Return the samples at integers `index`, in that order."""
        return replace(self, items=self.items[index], lengths=None if self.lengths is None else self.lengths[index])


Column = np.ndarray | Ragged | Lazy


def taken(column: Column, index: np.ndarray) -> Column:
    """Return the samples of a column at integers `index`, in that order."""
    return column[index] if isinstance(column, np.ndarray) else column.take(index)


@dataclass
class Split:
    """Samples in memory, in a memory map, or read on demand.

    Attributes:
        columns: Columns by the names of the spec; dense ones are (samples, ...).
        ids: (samples,) strings or integers, permanent names of the samples.
        labelled: (samples,) bool, whether a sample's targets may be used; None if all may.
        groups: (samples,) strings or integers. Samples of a group (a photo, a patient, a day) are dependent: they stay in
            one split and are resampled together. None for independent samples.
    """

    columns: dict[str, Column]
    ids: np.ndarray
    labelled: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Any:
        """Return a column by name."""
        if name not in self.columns:
            raise DataError(f"data: no such column. Received: '{name}'.{nearest(name, self.columns)}")
        return self.columns[name]

    def take(self, index: np.ndarray) -> Split:
        """Return the samples at integers `index`, in that order."""
        columns = {name: taken(column, index) for name, column in self.columns.items()}
        masks = (None if array is None else array[index] for array in (self.labelled, self.groups))
        return Split(columns, self.ids[index], *masks)


BLOCK = 2**24
"""Bytes of an array that are hashed at once."""

PARTS = ("train", "validation", "test")


@dataclass
class Dataset:
    """Data set with splits; `source` and `splits` are shown in the header, a run with a `refusal` ends with it.

    `original` returns an image as its file has it, whole and in its own shape, by the id of the sample; None if it cannot.
    """

    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    source: str
    splits: str
    refusal: str = ""
    original: Callable[[str], np.ndarray | None] | None = None

    def picture(self, name: str, sample: int) -> np.ndarray:
        """Return the image (channels, height, width) of a test sample for people: the original if it can be read."""
        found = self.original(str(self.test.ids[sample])) if self.original else None
        return self.test[name][sample] if found is None else found

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of SHA-256 over all values, lengths, groups, and ids that are text, such as dates.

        For a lazy column, over its items and its version.
        """
        digest = hashlib.sha256()

        def add(array: np.ndarray) -> None:
            if array.dtype == object:
                raise DataError(f"data={self.spec.name}: arrays of Python objects are not supported. Use Ragged or strings.")
            digest.update(f"{array.dtype}{array.shape}".encode())
            # Windows are views, and whole they would be copied.
            rows = max(1, BLOCK * max(1, len(array)) // max(1, array.nbytes)) if array.ndim else 1
            for start in range(0, len(array) if array.size else 0, rows):
                digest.update(np.ascontiguousarray(array[start : start + rows]).view(np.uint8).data)

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
            named = split.ids if split.ids.dtype.kind == "U" else None  # a date or a name; numbers are positions
            for array in (split.labelled, split.groups, named):
                if array is not None:
                    add(array)
        return digest.hexdigest()[:12]


@dataclass
class Batch:
    """Samples on the device.

    Attributes:
        columns: Tensors (batch, ...) or `Ragged` tensors by name. Class targets with mixed labels are (batch, classes)
            fractions.
        index: (batch,) int64 positions in the split.
        spec: Specification of the columns.
        labelled: (batch,) bool, whether a sample's targets may be used; None if all may.
    """

    columns: dict[str, Tensor | Ragged]
    index: Tensor
    spec: DataSpec
    labelled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, name: str) -> Any:
        """Return a column by name."""
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
        """Return the batch with new columns; also named `inputs` and `targets`."""
        for role, fields in (("inputs", self.spec.inputs), ("targets", self.spec.targets)):
            if role in columns:
                columns[_only(fields, role)] = columns.pop(role)
        return replace(self, columns={**self.columns, **columns})
