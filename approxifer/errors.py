"""Every error that approxifer raises on purpose, in one tree.

Each one also inherits the builtin that fits, so that plain ``except ValueError`` works::

    ApproxiferError
    ├── ConfigError (ValueError)            a bad argument, CodeSpec, or cluster.yaml
    ├── InputError (ValueError)             the dataset cannot be scored as asked
    │   └── InputNotFoundError (FileNotFoundError)
    ├── ModelError (ValueError)             the model cannot be loaded or is not fit for batches
    │   ├── ModelNotFoundError (FileNotFoundError)
    │   └── UntrustedModelError             loading it would run code from the file
    ├── StoreError (ValueError)             the output store cannot be used
    │   ├── FingerprintError                it belongs to another input, model or layout
    │   └── OutputError (OSError)           it cannot be written to any more: the disk is full
    ├── ClusterError (RuntimeError)         the cluster cannot run the job
    │   └── TooFewWorkersError
    ├── DecodeError (ValueError)            too few shares for an output
    └── TrustError (RuntimeError)           more Byzantine workers than the run can stand

A message says what was given, what is allowed, and what to do. ``usage`` is true for the kinds that
the caller can mend in the call; the command line ends with exit code 2 for those. However a message
is printed, it holds no control characters and no credentials: see `approxifer.text`.
"""

from approxifer.text import shown


class ApproxiferError(Exception):
    """The root of the tree."""

    #: Whether the mistake lies in what the user gave (exit code 2 on the command line).
    usage: bool = True

    def __str__(self) -> str:
        return shown(super().__str__())


class ConfigError(ApproxiferError, ValueError):
    """A bad argument, ``CodeSpec`` or ``cluster.yaml``."""


class InputError(ApproxiferError, ValueError):
    """The dataset cannot be scored as asked."""


class InputNotFoundError(InputError, FileNotFoundError):
    """No dataset at that path or URL."""


class ModelError(ApproxiferError, ValueError):
    """The model cannot be loaded, or its rows depend on each other."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model at that path or under that import name."""


class UntrustedModelError(ModelError):
    """Loading the file would unpickle, hence could run, what its author put into it."""


class StoreError(ApproxiferError, ValueError):
    """The output store cannot be used."""


class FingerprintError(StoreError):
    """The output store was begun with another input, model or layout."""


class OutputError(StoreError, OSError):
    """Writing the output, or its journal, failed half-way: a full disk, a lost mount."""

    usage = False


class ClusterError(ApproxiferError, RuntimeError):
    """The cluster cannot run the job."""


class TooFewWorkersError(ClusterError):
    """Fewer workers than the shares of one codeword that must not share a worker."""


class DecodeError(ApproxiferError, ValueError):
    """Too few shares came back for an output."""

    usage = False


class TrustError(ApproxiferError, RuntimeError):
    """More Byzantine workers than the run can stand."""

    usage = False
