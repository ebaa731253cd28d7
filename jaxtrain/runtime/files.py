"""Files that survive a power cut, and one line for a disk that takes no more."""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtrain.runtime.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO)
WORDS = (*map(os.strerror, FULL), "disk is full", "disk I/O error", " requested and ")
"""In what is raised by those who keep no error number: SQLite, Arrow, ArrayRecord, NumPy's `tofile`."""
LEAST = 1 << 16  # bytes: a disk with fewer is full


def flush(path: Path) -> None:
    """Until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Give what was written its name, in the same folder, in place of what has it."""
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


def write_whole(path: Path, text: str) -> None:
    """A file that holds what it held before, or all of the text, whenever the power goes."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    publish(temporary, path)


def sha256(path: Path) -> str:
    """Of a file's bytes, as sha256sum prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finite(value: Any) -> Any:
    """A JSON value whose numbers are all finite: JSON has no word for nan and infinity, they are null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Errors: UserError, naming it, where it is absent or holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is absent; put it back, or name another folder") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({str(error)[:100]}); restore it") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; restore it")
    return found


@contextmanager
def reading(what: object) -> Iterator[None]:
    """What goes wrong meanwhile is a UserError: anything in a file may be absent, odd, or no text at all."""
    try:
        yield
    except (UserError, ImportError):
        raise
    except Exception as error:  # packages that read files raise what they like
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{what} cannot be read ({problem}); restore it") from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What goes wrong with the disk meanwhile is a UserError, whoever raised it; other errors go on.

    folder: what is written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if cause := _cause(error, folder):
            raise UserError(cause) from error
        raise


def _cause(error: Exception, folder: Path) -> str | None:
    """What is wrong with the disk, and the remedy."""
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    for link in chain:
        number = link.errno if isinstance(link, OSError) else None
        if number in CLOSED:
            place = getattr(link, "filename", None) or folder
            return f"{place}: {os.strerror(number)}; give this user access, or name another folder: --out"
        if number in FULL or says_full(link):
            return _full(folder)
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return _full(folder) if shutil.disk_usage(above).free < LEAST else None


def says_full(error: BaseException) -> bool:
    """Whether the words of an error without a number say that the disk takes no more."""
    return any(word in str(error) for word in WORDS)


def _full(folder: Path) -> str:
    return f"{folder}: no space is left to write it; free some, and run the same command again: it goes on"
