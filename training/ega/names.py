"""Arrays of text from .npy files, the published pickled ones too, without executing anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.errors import DataError


def read_names(path: Path) -> NDArray[np.str_]:
    """Read an array of text.

    NumPy stores arrays of objects, as the published vocabularies and splits are, as a pickle, and reading
    one executes whatever it asks for. Here such a file may hold an array of text, lists of text and numbers;
    anything else is refused.

    Returns:
        The array; an array of equally long lists becomes two-dimensional.

    Raises:
        DataError: missing, damaged, or not text.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) == (1, 0):
                _, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                _, _, dtype = np.lib.format.read_array_header_2_0(file)
            if dtype.hasobject:
                array = _TextUnpickler(file).read()
            else:
                file.seek(0)
                array = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except DataError as error:
        raise DataError(f"{path}: {error.message}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path} cannot be read as an array of text: {error}") from error
    if array.dtype.kind in "iuS":
        array = array.astype(np.str_)
    if array.dtype.kind != "U" or array.size == 0:
        raise DataError(f"{path} must hold text, not {array.dtype} of shape {array.shape}.")
    return array


class _Dtype:
    """Stands in for numpy.dtype: keeps its code, such as "O8" or "U5"."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode() if isinstance(order, bytes) else order


class _Array:
    """Stands in for numpy.ndarray: keeps shape and items."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()
        self.items: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, dtype, _, items = state
        if dtype.code.startswith("U"):
            size = 4 * int(dtype.code[1:])
            self.items = [_scalar(dtype, items[k : k + size]) for k in range(0, len(items), max(size, 1))]
        else:
            self.items = items

    def flat(self) -> list[Any]:
        """The items, arrays inside flattened."""
        return [part for item in self.items for part in (item.flat() if isinstance(item, _Array) else [item])]


def _scalar(dtype: _Dtype, data: bytes) -> str | int:
    """Stands in for NumPy's scalar constructor."""
    if dtype.code.startswith("U"):
        return data.decode("utf-32-be" if dtype.order == ">" else "utf-32-le").rstrip("\0")
    if dtype.code[0] in "iu":
        return int.from_bytes(data, "big" if dtype.order == ">" else "little", signed=dtype.code[0] == "i")
    raise DataError(f"it holds a value of type {dtype.code}, not text.")


class _TextUnpickler(pickle.Unpickler):
    """Builds the stand-ins above and Python's own containers; whatever else a pickle names is refused."""

    STANDINS = {  # noqa: RUF012 - never changed
        **{
            (module, name): standin
            for module in ("numpy.core.multiarray", "numpy._core.multiarray")
            for name, standin in (("_reconstruct", _Array), ("scalar", _scalar))
        },
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): lambda text, *_: text.encode("latin1"),
    }

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="bytes")  # text that Python 2 wrote is bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.STANDINS:
            raise DataError(f"it holds {module}.{name}, not just text; save it as an array of text.")
        return self.STANDINS[module, name]

    def read(self) -> NDArray[np.str_]:
        """The array of text in the file."""
        array = self.load()
        if not isinstance(array, _Array):
            raise DataError("it holds no array.")
        items, shape = array.items, tuple(array.shape)
        if items and all(isinstance(item, list | tuple | _Array) for item in items):
            rows = [item.flat() if isinstance(item, _Array) else list(item) for item in items]
            if len({len(row) for row in rows}) != 1:
                raise DataError("its rows differ in length.")
            items, shape = [part for row in rows for part in row], (*shape, len(rows[0]))
        words = [item.decode() if isinstance(item, bytes) else item for item in items]
        if not all(isinstance(word, str | int) for word in words):
            raise DataError("it must hold text only.")
        return np.array([str(word) for word in words], np.str_).reshape(shape)
