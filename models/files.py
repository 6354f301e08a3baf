"""Files of models and weights, at local paths and at URLs."""

import os
import re
from pathlib import Path
from typing import Any

import fsspec

from approxifer.errors import ModelError, ModelNotFoundError
from approxifer.models.names import first_line

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")


def read_file(location: str | os.PathLike[str], what: str, remedy: str) -> tuple[str, bytes]:
    """Read a file whole.

    Parameters
    ----------
    location : path, or an fsspec URL
        ``s3://bucket/model.pt2`` needs the package for that kind of URL; its credentials are where
        that package looks for them.
    what : str
        The argument's name, for messages.
    remedy : str
        What to give instead.

    Returns
    -------
    str, bytes
        The file's name, and its contents.

    Raises
    ------
    ModelNotFoundError
        No such file.
    ModelError
        It cannot be read.
    """
    text = os.fspath(location)
    remote = URL.match(text) is not None
    try:
        return _name(text), _fetched(text) if remote else _local(Path(text))
    except FileNotFoundError as error:
        where = " Check the spelling and the credentials." if remote else ""
        raise ModelNotFoundError(
            f"{what}={text!r}: there is no such file.{where} {remedy}"
        ) from error
    except ImportError as error:
        raise ModelError(
            f"{what}={text!r} cannot be read: {first_line(error)}. Install the package for this"
            f" kind of URL, or copy the file here. {remedy}"
        ) from error
    except Exception as error:  # whatever a storage comes up with
        raise ModelError(
            f"{what}={text!r} cannot be read ({first_line(error)}). {remedy}"
        ) from error


def _name(text: str) -> str:
    return re.split(r"[?#]", text.rstrip("/"))[0].rpartition("/")[2] or text


def _local(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # reading a pipe or a device may never end
        raise OSError("it is no regular file")
    return path.read_bytes()


def _fetched(url: str) -> bytes:
    file: Any
    with fsspec.open(url, "rb") as file:
        data: bytes = file.read()
    return data
