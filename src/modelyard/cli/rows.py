"""Rows as people write them -> the inputs of a model."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.base.errors import UserError
from modelyard.sdk.tensors import Metadata, Tensor

Inputs = dict[str, Any]
STDIN = "-"
_MAX_BYTES = 256 * 2**20


def read(data: str | None, file: str | None, metadata: Metadata) -> Inputs:
    """The inputs by name, rows first. Raises UserError that says what was expected."""
    if data is not None:
        return from_json(_json(data, "--data"), metadata)
    assert file is not None
    if file != STDIN and Path(file).suffix == ".npy":
        return _single(_array(file), metadata)
    text = _text(file)
    if Path(file).suffix == ".json" or (file == STDIN and text.lstrip()[:1] in ("[", "{")):
        return from_json(_json(text, file), metadata)
    return from_csv(text, metadata)


def from_json(value: Any, metadata: Metadata) -> Inputs:
    """One row, several, objects with a field for each input, columns by input, or a whole inference request."""
    if isinstance(value, dict):
        if isinstance(value.get("inputs"), list):
            return _request(value["inputs"])
        if all(isinstance(each, list) for each in value.values()):
            return {name: _shaped(_input(metadata, name), each) for name, each in value.items()}
        value = [value]
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return _columns(value, metadata)
    return _single(value, metadata)


def from_csv(text: str, metadata: Metadata) -> Inputs:
    """A header is needed, and used, where the model has several inputs."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=None)) if row]
    except csv.Error as error:
        raise UserError(f"the rows are not CSV: {error}") from error
    if not rows:
        raise UserError("there are no rows; expected one line for each, with commas between the values")
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise UserError(f"row {number} has {len(row)} values, the first has {width}")
    if len(metadata.inputs) > 1:
        header, *body = rows
        unknown = [name for name in header if name not in {each.name for each in metadata.inputs}]
        if unknown:
            raise UserError(
                f"the first line must name the inputs {', '.join(each.name for each in metadata.inputs)}; "
                f"unknown: {', '.join(unknown)}"
            )
        named = dict(zip(header, zip(*body, strict=True), strict=True)) if body else dict.fromkeys(header, ())
        return {
            name: _shaped(tensor := _input(metadata, name), _cells(tensor, cells, f"column {name}"))
            for name, cells in named.items()
        }
    tensor = metadata.inputs[0]
    headed = tensor.datatype != "BYTES" and not any(_is_number(cell) for cell in rows[0])
    cells = [_cells(tensor, row, f"row {number}") for number, row in enumerate(rows[headed:], 1 + headed)]
    return {tensor.name: _shaped(tensor, [row[0] for row in cells] if len(tensor.shape) == 1 else cells)}


def _request(items: Sequence[Any]) -> Inputs:
    try:
        return {
            str(each["name"]): np.asarray(
                each["data"], dtype=object if each.get("datatype") == "BYTES" else None
            ).reshape(each["shape"])
            for each in items
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"inputs: expected a list of {{name, shape, datatype, data}}: {error}") from error


def _columns(rows: Sequence[Mapping[str, Any]], metadata: Metadata) -> Inputs:
    """Objects: each input is a column."""
    names = list(rows[0])
    for number, row in enumerate(rows, 1):
        if set(row) != set(names):
            raise UserError(f"row {number} has the fields {', '.join(row)}, the first has {', '.join(names)}")
    return {name: _shaped(_input(metadata, name), [row[name] for row in rows]) for name in names}


def _single(value: Any, metadata: Metadata) -> Inputs:
    if len(metadata.inputs) != 1:
        names = ", ".join(each.name for each in metadata.inputs)
        raise UserError(f"the model has {len(metadata.inputs)} inputs: give objects or columns named {names}")
    tensor = metadata.inputs[0]
    return {tensor.name: _shaped(tensor, value)}


def _shaped(tensor: Tensor, value: Any) -> Any:
    """One row becomes a batch of one; a column of values one of rows with one value, where the model wants that."""
    try:
        array = np.asarray(value, dtype=object if tensor.datatype == "BYTES" else None)
    except ValueError as error:
        raise UserError(f"{tensor.name}: the rows differ in length; expected the shape {list(tensor.shape)}") from error
    if not array.size:
        raise UserError(f"{tensor.name}: there are no values; expected the shape {list(tensor.shape)} (-1: any size)")
    rank = len(tensor.shape)
    if array.ndim == rank - 1:
        array = array[:, None] if rank == 2 and tensor.shape[1] == 1 and array.ndim == 1 else array[None]
    if array.ndim != rank or any(
        takes not in (-1, size) for takes, size in zip(tensor.shape, array.shape, strict=True)
    ):
        raise UserError(_misshapen(tensor, array.shape))
    return array


def _misshapen(tensor: Tensor, shape: tuple[int, ...]) -> str:
    if len(shape) == len(tensor.shape) == 2:
        return f"{tensor.name}: the rows have {shape[1]} values; the model takes {tensor.shape[1]}"
    return (
        f"{tensor.name}: the values have the shape {list(shape)}; the model takes {list(tensor.shape)} (-1: any size)"
    )


def _input(metadata: Metadata, name: str) -> Tensor:
    found = next((each for each in metadata.inputs if each.name == name), None)
    if found is None:
        names = ", ".join(each.name for each in metadata.inputs)
        raise UserError(f"the model has no input {name!r}; its inputs are {names}")
    return found


def _cells(tensor: Tensor, cells: Sequence[str], place: str) -> list[Any]:
    return list(cells) if tensor.datatype == "BYTES" else [_value(tensor, cell, place) for cell in cells]


def _value(tensor: Tensor, cell: str, place: str) -> Any:
    try:
        if tensor.datatype == "BOOL":
            return {"true": True, "1": True, "false": False, "0": False}[cell.strip().lower()]
        return int(cell) if tensor.datatype.strip("U").startswith("INT") else float(cell)
    except (ValueError, KeyError) as error:
        hint = ", with commas between the values" if ";" in cell or "\t" in cell else ""
        raise UserError(
            f"{place}: {cell!r} is no value of {tensor.datatype}, which {tensor.name} takes{hint}"
        ) from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("true", "false")
    return True


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON: {error}; expected rows such as [[5.1, 3.5, 1.4, 0.2]]") from error


def _text(file: str) -> str:
    try:
        if file == STDIN:
            found = sys.stdin.read(_MAX_BYTES + 1)
        else:
            with Path(file).open(encoding="utf-8-sig", newline="") as source:
                found = source.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8; expected CSV or JSON, or a file named *.npy") from error
    if len(found) > _MAX_BYTES:
        raise UserError(f"{file} is larger than {_MAX_BYTES // 2**20} MiB; send it in parts")
    return found


def _array(file: str) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{file} is not an array of numbers as numpy.save writes it: {error}") from error
