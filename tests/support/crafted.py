"""A ``.pt2`` taken apart, changed and put together again."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Records = dict[str, bytes]


class Payload:
    """An object whose unpickling makes a file, and gives an empty dict."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"[open({self.marker!r}, 'w').close(), {{}}][1]",)


@dataclass
class Craft:
    """A plain archive taken apart, and where the marker shall appear."""

    marker: Path
    records: Records
    root: str = "model"
    compressed: bool = False
    twice: list[tuple[str, bytes]] = field(default_factory=list)

    def json(self, name: str) -> Any:
        return json.loads(self.records[name])

    def put(self, name: str, document: Any) -> None:
        self.records[name] = json.dumps(document).encode()

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        document = self.json(name)
        change(document)
        self.put(name, document)

    def pickled(self) -> bytes:
        return pickle.dumps(Payload(self.marker))

    def saved(self) -> bytes:
        buffer = io.BytesIO()
        torch.save(Payload(self.marker), buffer)
        return buffer.getvalue()

    @property
    def code(self) -> str:
        """An expression that makes the file."""
        return f"open({str(self.marker)!r}, 'w').close()"

    def write(self) -> bytes:
        buffer = io.BytesIO()
        kind = zipfile.ZIP_DEFLATED if self.compressed else zipfile.ZIP_STORED
        with zipfile.ZipFile(buffer, "w", kind) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the same name twice
            for name, data in [*self.records.items(), *self.twice]:
                path = f"{self.root}/{name}" if self.root else name
                info = zipfile.ZipInfo(path)
                info.compress_type = kind
                archive.writestr(info, data)
        return buffer.getvalue()


def take_apart(data: bytes) -> Records:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
