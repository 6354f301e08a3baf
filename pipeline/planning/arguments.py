"""The arguments of a run: each is declared here, and nowhere else.

`score`, its docstring, the job file, the command line and ``docs/arguments.md`` are made of this
table. An argument of another's choosing is one more field.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from approxifer.pipeline.planning.kinds import (
    Flag,
    FormOf,
    Kind,
    Lengths,
    Made,
    Names,
    Number,
    OneOf,
    PathTo,
    Settings,
    Size,
    Text,
    Texts,
    Whole,
)

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

#: The groups of arguments, in the order in which they are shown.
DATA, MODEL, CLUSTER = "Input and output", "Model", "Cluster"
CODE, SIZES, LATE = "Code and repair", "Sizes", "Slow and hung workers"
TRUST, RUN = "Byzantine workers", "Run"


@dataclass(frozen=True)
class About:
    """Further facts of an argument, beside its field's name, type and default.

    Attributes
    ----------
    group : str
        Under which it is shown.
    kind : Kind
        Which values it takes.
    help : str
        A sentence.
    more : str
        Further sentences, where there is room for them.
    default : str
        In words, where None stands for something that the run chooses.
    off : str
        A sentence for a flag that turns it off on the command line.
    letter : str
        A letter of its own on the command line.
    shell : bool
        False where it makes sense in Python alone.
    """

    group: str
    kind: Kind
    help: str
    more: str = ""
    default: str = ""
    off: str = ""
    letter: str = ""
    shell: bool = True


def about(group: str, kind: Kind, help: str, more: str = "", **others: Any) -> dict[str, About]:
    """Metadata of a field of `Arguments`."""
    return {"about": About(group, kind, help, more, **others)}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of one run, as given; None: chosen by the run."""

    data: str | os.PathLike[str] | xr.DataArray | xr.Dataset = field(
        kw_only=False,
        metadata=about(
            DATA,
            Kind("IN"),
            "Zarr store to score: a path or an fsspec URL.",
            "Or a DataArray, or a Dataset, all variables of which are scored together.",
        ),
    )
    out: str | os.PathLike[str] = field(
        metadata=about(DATA, PathTo("OUT"), "Output store; one that is there already is resumed.")
    )
    variable: str | None = field(
        default=None,
        metadata=about(
            DATA, Text("NAME"), "Array in the store to score.", default="the only one there"
        ),
    )
    variables: str | Sequence[str] | None = field(
        default=None,
        metadata=about(
            DATA,
            Names("NAME,..."),
            "Arrays in the store that are scored together, in this order.",
            "A row holds them along a new first dimension; a model whose inputs have their names "
            "is given each by itself.",
            default="one",
        ),
    )
    sample_dim: str | Sequence[str] | None = field(
        default=None,
        metadata=about(
            DATA,
            Names("NAME"),
            "Dimension along which the rows lie; or several, as time,latitude.",
            "Of several each point is a row, and the output has them as the input has.",
            default="the first",
        ),
    )
    tile: Mapping[str, int] | None = field(
        default=None,
        metadata=about(
            DATA,
            Lengths(least=1),
            "Tiles into which a field is cut: their lengths by dimension.",
            "Each is a row; their outputs are put together again.",
            default="whole fields",
        ),
    )
    halo: int | Mapping[str, int] = field(
        default=0,
        metadata=about(
            DATA,
            Lengths(alone=True, metavar="N"),
            "Border of a tile: points of its neighbours that the model sees too.",
            "One number, or one by dimension. At the edge of the field it is reflected.",
        ),
    )
    output: str | Mapping[str, Any] | xr.Dataset | None = field(
        default=None,
        metadata=about(
            DATA,
            FormOf(),
            "Form of the predictions: like-input, or a mapping, here as JSON.",
            "A mapping has any of ``variable``, ``dims``, ``coords``, ``attrs``, ``dtype``, "
            "``chunks``, ``shards`` and ``codec``; of several outputs it has such a mapping, or "
            "another name, for each name. Or a template, an ``xarray.Dataset``.",
            default="like-input for a row of two dimensions or more that keeps its shape",
        ),
    )
    storage_options: Mapping[str, Any] | None = field(
        default=None,
        repr=False,  # it may hold credentials
        metadata=about(
            DATA,
            Settings(),
            "Settings of the input's file system, as fsspec takes them.",
            "Credentials, an endpoint, and ``read_timeout``, the seconds that one read may take "
            "(30). Nothing that is written holds them.",
        ),
    )
    model: Any = field(
        metadata=about(
            MODEL,
            Kind("MODEL"),
            "A torch.export program (.pt2), or MODULE:FACTORY.",
            "Or an ``nn.Module``, or a callable of arrays (M, *feature) -> (M, *out). What workers "
            "cannot import is sent to them.",
        )
    )
    state: str | os.PathLike[str] | None = field(
        default=None, metadata=about(MODEL, PathTo("FILE"), "Weights for a factory's module.")
    )
    preprocess: str | Callable[..., Any] | None = field(
        default=None,
        metadata=about(
            MODEL,
            Kind("MODULE:FUNCTION"),
            "Function of rows (n, *stored) -> (n, *feature), applied before the model.",
            "As a text or a callable, called on the client. A row's result must depend on nothing "
            "but that row: no random numbers, no statistics of the rows it comes with. That is "
            "tried on sample rows.",
        ),
    )
    postprocess: str | Callable[..., Any] | None = field(
        default=None,
        metadata=about(
            MODEL,
            Made(),
            "What outputs are made into: argmax, softmax, topk:N, or MODULE:FUNCTION.",
            "The first three are for one number for each class. A function, (n, *out) -> "
            "(n, *result), gets several outputs as a dict, and may return several; a row's result "
            "must depend on nothing but that row. That is tried on sample rows.",
        ),
    )
    keep: bool = field(
        default=False,
        metadata=about(
            MODEL,
            Flag(),
            "Store the model's outputs too, beside what postprocess makes of them.",
        ),
    )
    dtype: str = field(
        default="float32",
        metadata=about(MODEL, Text("NAME"), "Precision of the model; stored: rows as they are."),
    )
    device: str = field(
        default="auto",
        metadata=about(MODEL, Text("NAME"), "cpu, cuda, or auto: a GPU where a worker has one."),
    )
    trust_model: bool = field(
        default=False,
        metadata=about(MODEL, Flag(), "Load a .pt2 file that can run code of its author's."),
    )
    cluster: str | os.PathLike[str] | Mapping[str, Any] | None = field(
        default=None,
        metadata=about(
            CLUSTER,
            Kind("FILE"),
            "Cluster file (cluster.yaml).",
            "Or what it would hold, as a mapping.",
            default="a local cluster",
        ),
    )
    client: Client | None = field(
        default=None,
        metadata=about(
            CLUSTER, Kind(), "A Dask client of one's own, instead of ``cluster``.", shell=False
        ),
    )
    scheme: str = field(
        default="systematic",
        metadata=about(
            CODE,
            Text("NAME"),
            "systematic, berrut, parm, replication, replication-adaptive, uncoded.",
            "Adaptive replication makes E + 1 copies, and more only where these differ.",
        ),
    )
    k: int | None = field(
        default=None,
        metadata=about(
            CODE,
            Whole(least=1),
            "Queries per codeword, K.",
            default="the largest K <= 8 that the workers allow",
            letter="k",
        ),
    )
    stragglers: int = field(
        default=1,
        metadata=about(CODE, Whole(least=0), "Stragglers tolerated per group, S.", letter="s"),
    )
    byzantine: int = field(
        default=0,
        metadata=about(CODE, Whole(least=0), "Byzantine workers tolerated, E.", letter="e"),
    )
    parity: str | os.PathLike[str] | None = field(
        default=None,
        metadata=about(
            CODE, PathTo("DIR"), "With scheme parm: its parity models, made by train-parity."
        ),
    )
    order: str | Callable[..., Any] | None = field(
        default=None,
        metadata=about(
            CODE,
            OneOf(names=("none", "natural", "similar", "random"), callables=True),
            "Which rows form a codeword: none, natural, similar, random, or MODULE:FUNCTION.",
            "A function, (n, *feature) -> real numbers (n, d), says what similar rows are compared "
            "by, instead of their own numbers. It runs on the client; it may look at the rows of a "
            "call together, but not draw random numbers or change the rows.",
            default="none under repair exact, else similar",
        ),
    )
    decoder: str = field(
        default="berrut",
        metadata=about(
            CODE,
            OneOf(names=("berrut", "fitted")),
            "How to decode: berrut, or fitted.",
            "Fitted: by weights learnt at the start from all shares of 25 codewords of the first "
            "window, for that many evaluations more. Not with ``byzantine``.",
        ),
    )
    repair: str | float = field(
        default="exact",
        metadata=about(
            CODE,
            OneOf(names=("exact", "none"), number=Number(least=0.5, most=0.9999)),
            "Decoded rows to run again: exact (all), none, or a fraction such as 0.995.",
            "A fraction is the part of all rows whose class is to be the one that the model gives: "
            "rows whose decode is in doubt are run again. How sure a decode must be for that is "
            "learnt from rows of the run. For models that give a number for each of at least two "
            "classes.",
        ),
    )
    block: int | None = field(
        default=None,
        metadata=about(
            SIZES,
            Whole(least=1, metavar="ROWS"),
            "Rows per share.",
            default="from the model's speed",
        ),
    )
    window: int | None = field(
        default=None,
        metadata=about(
            SIZES,
            Whole(least=1, metavar="ROWS"),
            "Rows held at one time and committed together.",
            default="from the model's speed and memory",
        ),
    )
    memory: str | int = field(
        default="1GB", metadata=about(SIZES, Size(), "What the rows on the client may take.")
    )
    in_flight: float = field(
        default=3.0,
        metadata=about(
            SIZES,
            Number(least=1.0),
            "Shares sent out for each worker.",
            "Fewer shorten the time that a group takes, and leave workers idle for a moment: 1.5 "
            "is for those who use rows as they return.",
        ),
    )
    late: float | None = field(
        default=None,
        metadata=about(
            LATE,
            Number(least=1.0, metavar="MEDIANS"),
            "When a share below the threshold is submitted again, in median share times.",
            default="2, or three times hedge's multiple",
        ),
    )
    hedge: str | Sequence[float] | None = field(
        default=None,
        metadata=about(
            LATE,
            Kind("NAME"),
            "Uncoded, replication: copy slow shares as cubed, spark, or MULTIPLE,AFTER.",
            'Of a share and its copy the first to return is used. ``"cubed"``: after 3 medians, '
            'once half of the shares that were in flight with it are back; ``"spark"``: 1.5 and '
            "three quarters; or a pair, ``(2.0, 0.5)``.",
            default="late alone decides",
        ),
    )
    heal: str | None = field(
        default=None,
        metadata=about(
            LATE,
            OneOf(names=("restart", "avoid")),
            "Hung workers: restart them, or avoid them.",
            default="restart where the cluster is started by the run",
        ),
    )
    hang_after: float = field(
        default=30.0,
        metadata=about(
            LATE,
            Number(least=0.1, metavar="SECONDS"),
            "When a running share, or a silent worker, counts as hung.",
        ),
    )
    stall_after: float = field(
        default=300.0,
        metadata=about(
            LATE,
            Number(least=1.0, metavar="SECONDS"),
            "End the run after so long without any share coming back.",
            "But at least three times what counts as hung. The error says who holds what; at half "
            "of it progress says so.",
        ),
    )
    check: int | None = field(
        default=None,
        metadata=about(
            TRUST,
            Whole(least=0, metavar="ROWS"),
            "Rows of each share that are run again on other workers, and compared.",
            "They are drawn once the share's output is back. With 0 and ``byzantine`` > 0, copies "
            "and the paper's locator find wrong shares (replication, berrut).",
            default="3 with byzantine > 0, else 0",
        ),
    )
    assurance: float | None = field(
        default=None,
        metadata=about(
            TRUST,
            Number(least=0.001, most=0.999, metavar="FRACTION"),
            "Check until fewer of any worker's rows can be wrong, with 95 % confidence.",
        ),
    )
    referee: str = field(
        default="client",
        metadata=about(
            TRUST,
            OneOf(names=("client", "quorum")),
            "Who settles differences: client, or quorum.",
            "The client runs the row itself; a quorum is E + 1 workers that agree.",
        ),
    )
    quarantine: Literal["worker", "node"] | None = field(
        default=None,
        metadata=about(
            TRUST,
            OneOf(names=("worker", "node")),
            "Shut out a convicted worker, or its node.",
            "For this output store also in later sessions.",
            default="node where the workers are on several hosts",
        ),
    )
    forgive: Sequence[str] = field(
        default=(),
        metadata=about(
            TRUST, Texts("HOST"), "Use a convicted node again; may be given repeatedly."
        ),
    )
    retry_failed: bool = field(
        default=False, metadata=about(RUN, Flag(), "Run rows again that failed earlier.")
    )
    accept_code_change: bool = field(
        default=False,
        metadata=about(
            RUN, Flag(), "Go on with a store although the user's own code has changed since."
        ),
    )
    append: bool = field(
        default=False,
        metadata=about(
            RUN,
            Flag(),
            "Score the rows by which the input has grown, too.",
            "The output is lengthened along the first sample dimension; what was there must be as "
            "it was.",
        ),
    )
    seed: int = field(default=0, metadata=about(RUN, Whole(least=0), "Seed of all random choices."))
    progress: bool = field(
        default=True,
        metadata=about(
            RUN,
            Flag(),
            "Show progress on stderr.",
            "A bar, or plain lines where stderr is no terminal; `submit` shows none.",
            off="Show no progress on stderr.",
        ),
    )


#: Arguments of earlier versions, and what to give instead.
FORMER = {
    "adaptive": "scheme='replication-adaptive'",
    "agreement": "repair=, which takes the fraction itself: repair=0.995",
    "audit": "check=, rows of each share: check=3",
    "features": "order=, which takes the function itself: order=function",
    "patience": "nothing: it follows from repair=",
    "redundancy": "nothing: it follows from repair=",
}


def declared() -> dict[str, Field[Any]]:
    """Every argument by its name, in the order of the declaration."""
    return {one.name: one for one in fields(Arguments)}


def grouped() -> dict[str, list[Field[Any]]]:
    """The arguments by the group under which they are shown."""
    found: dict[str, list[Field[Any]]] = {
        group: [] for group in (DATA, MODEL, CLUSTER, CODE, SIZES, LATE, TRUST, RUN)
    }
    for one in declared().values():
        found[described(one).group].append(one)
    return found


def described(argument: Field[Any]) -> About:
    """The declaration of an argument beside its name, type and default."""
    found: About = argument.metadata["about"]
    return found


def required(argument: Field[Any]) -> bool:
    """True where a run needs it."""
    return argument.default is MISSING


def default_in_words(argument: Field[Any]) -> str:
    """Its default, for people; empty where there is none worth a word."""
    said = described(argument).default
    value = argument.default
    if said or required(argument) or value is None or value == () or isinstance(value, bool):
        return said
    return f"{value:g}" if isinstance(value, float) else str(value)
