"""Every code of the package, registered when `approxifer.coding` is imported.

A new scheme is a module with a `Code` and its `Scheme`, and one entry here.
"""

from approxifer.checks import instance
from approxifer.coding.berrut import BERRUT, SYSTEMATIC
from approxifer.coding.code import Code
from approxifer.coding.parm import PARM
from approxifer.coding.replication import ADAPTIVE, REPLICATION
from approxifer.coding.spec import CodeSpec, register
from approxifer.coding.uncoded import UNCODED

for _scheme in (UNCODED, REPLICATION, ADAPTIVE, PARM, BERRUT, SYSTEMATIC):
    register(_scheme)


def build_code(spec: CodeSpec) -> Code:
    """Make the code of a spec.

    Raises
    ------
    ConfigError
        If it is none.
    """
    instance("spec", spec, CodeSpec, "a CodeSpec")
    return spec.build()
