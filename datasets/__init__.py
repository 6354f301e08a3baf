"""Reading windows of queries from Zarr, and writing predictions to Zarr.

`open_source` gives the rows of a dataset, `OutputStore` takes the rows of a result, `Journal` keeps
the events beside it. `approxifer.datasets.samples` and ``python -m approxifer.datasets.convert``
make small Zarr stores to try things on.
"""

from approxifer.datasets.dtypes import codable
from approxifer.datasets.journal import Journal
from approxifer.datasets.layout import FLAG_MEANINGS
from approxifer.datasets.source import Source, open_source
from approxifer.datasets.store import OutputStore

__all__ = ["FLAG_MEANINGS", "Journal", "OutputStore", "Source", "codable", "open_source"]
