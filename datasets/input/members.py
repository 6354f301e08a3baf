"""The arrays of a Zarr group: the one to be scored, and the coordinates of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr
import zarr
from zarr.core.sync import sync

from approxifer.datasets.codecs import Array, check_array, check_memory
from approxifer.datasets.input.coords import decoded
from approxifer.datasets.input.opening import dimensions, raw_variable
from approxifer.errors import InputError
from approxifer.quiet import quiet
from approxifer.text import did_you_mean, one_line

#: Arrays below a group that a message names, and that are looked for at all.
SHOWN = 8
LOOKED_FOR = 200


@dataclass(frozen=True)
class Member:
    """An array, its name, and the groups on the way to it, the nearest first."""

    name: str
    array: Array
    groups: tuple[zarr.Group, ...] = ()

    def coordinates(self, sizes: Mapping[str, int]) -> tuple[dict[str, xr.Variable], list[str]]:
        """The coordinates that have no other dimensions than these, decoded.

        Parameters
        ----------
        sizes
            Dimensions of the array, and their lengths.

        Returns
        -------
        coordinates : dict of str to xarray.Variable
        notes : list of str
            On those that are not as the store has them, or not read.
        """
        found: dict[str, xr.Variable] = {}
        notes: list[str] = []
        for name in self._names(sizes):
            array = next(filter(None, (_array(group, name) for group in self.groups)), None)
            if array is None:
                continue
            try:
                dims = dimensions(array)
                if len(set(dims)) < len(dims) or (name in sizes and dims != (name,)):
                    continue
                if any(sizes.get(d) != n for d, n in zip(dims, array.shape, strict=True)):
                    continue
                check_array(array, str(array.store))
                check_memory("it", array.size, array.dtype)
                with quiet():
                    found[name], note = decoded(name, raw_variable(array, dims))
            except Exception as error:  # a damaged or crafted store fails in any way it likes
                note = f"the coordinate {name!r} cannot be read: {one_line(error)}"
            notes += [note] if note else []
        return found, notes

    def _names(self, dims: Iterable[str]) -> list[str]:
        """The dimensions themselves, and what the conventions of climate data name."""
        named = [*dims, *_words(self.array), *_words(self.array, "grid_mapping")]
        for group in self.groups:
            named += _words(group)
        return [name for name in dict.fromkeys(named) if "/" not in name]


def choose(group: zarr.Group, variable: str | None, location: str) -> Member:
    """Find the array to be scored in a group.

    Parameters
    ----------
    variable
        Its name, or the path to it, or to a group in which it is the only one. None: the only one.
    location
        Of the group, for messages.

    Raises
    ------
    InputError
        It is not there, or must be named.
    """
    if variable is None or not variable.strip("/"):
        return _only(group, "", (group,), location)
    groups, node, at = [group], group, ""
    for part in variable.strip("/").split("/"):
        at = f"{at}/{part}".lstrip("/")
        member = _member(node, part)
        if member is None:
            raise _absent(group, at, variable, location)
        if isinstance(member, zarr.Array):
            if at == variable.strip("/"):
                return Member(variable, member, tuple(reversed(groups)))
            raise _absent(group, at, variable, location)
        node = member
        groups.append(node)
    return _only(node, f"{at}/", tuple(reversed(groups)), location)


def _only(group: zarr.Group, prefix: str, groups: tuple[zarr.Group, ...], location: str) -> Member:
    arrays = _arrays(group)
    candidates = [name for name in sorted(arrays) if _has_rows(name, arrays)]
    if len(candidates) == 1:
        return Member(prefix + candidates[0], arrays[candidates[0]], groups)
    place = location.rstrip("/")
    if candidates:
        first = prefix + candidates[0]
        raise InputError(
            f"{location!r} holds {len(candidates)} variables: {_listed(candidates, prefix)}. "
            "Choose the one to score with variable= (--variable), or give the path of its array, "
            f"such as {f'{place}/{first}'!r}."
        )
    below = [f"{prefix}{path}" for path in _below(group)]
    if below:
        raise InputError(
            f"{location!r} holds no variable with a dimension to score along. In its subgroups are "
            f"{_listed(below)}. Choose one with variable= (--variable), or give its path, such as "
            f"{f'{place}/{below[0]}'!r}."
        )
    raise InputError(
        f"{location!r} holds no variable with a dimension to score along. (Where a server lists no "
        "files, and the store has no consolidated metadata, name the array with variable=.)"
    )


def _absent(group: zarr.Group, at: str, variable: str, location: str) -> InputError:
    names = [name for name, array in _arrays(group).items() if array.ndim]
    known = sorted(names) or list(_below(group))
    return InputError(
        f"{location!r} holds no variable {variable!r}{did_you_mean(at, known) or '.'} "
        f"It holds {_listed(known) or 'none'}."
    )


def _member(group: zarr.Group, name: str) -> zarr.Group | Array | None:
    try:
        with quiet():
            return group[name]
    except KeyError:
        return None
    except Exception as error:  # likewise
        raise InputError(f"Cannot open {name!r} in the store: {one_line(error)}.") from error


def _array(group: zarr.Group, name: str) -> Array | None:
    """An array that may be there: coordinates are named, but need not exist."""
    try:
        member = _member(group, name)
    except InputError:
        return None
    return member if isinstance(member, zarr.Array) else None


def _arrays(group: zarr.Group) -> dict[str, Array]:
    """The arrays of a group; one that zarr cannot open is left out, unless it is asked for."""
    try:
        with quiet():
            return dict(group.arrays())
    except Exception:  # likewise: then one by one
        names = _names_in(group)
    return {name: array for name in names if (array := _array(group, name)) is not None}


def _names_in(group: zarr.Group) -> list[str]:
    """The names of what lies in a group, whether or not it can be opened."""

    async def listed() -> list[str]:
        return [name async for name in group.store.list_dir(group.path)]

    try:
        with quiet():
            names = sync(listed())
    except Exception:  # a store that cannot be listed
        return []
    return sorted(name for name in names if not name.startswith(".") and name != "zarr.json")


def _has_rows(name: str, arrays: dict[str, Array]) -> bool:
    """True unless it is a single value, or what others take as a coordinate."""
    array = arrays[name]
    if not array.ndim:
        return False
    others = (one for other, one in arrays.items() if other != name)
    own = list(_dims(array)) == [name]
    return not own and not any(name in _words(one) or name in _dims(one) for one in others)


def _dims(array: Array) -> tuple[str, ...]:
    try:
        return dimensions(array)
    except InputError:
        return ()


def _words(node: zarr.Group | Array, attribute: str = "coordinates") -> list[str]:
    """The coordinates that an array or a group names."""
    named: Any = node.attrs.get(attribute)
    return named.split() if isinstance(named, str) else []


def _below(group: zarr.Group, prefix: str = "") -> Iterator[str]:
    """Paths of arrays in subgroups, at most so many as are worth looking for."""
    left = LOOKED_FOR
    waiting = [(prefix, group)]
    while waiting and left > 0:
        path, node = waiting.pop(0)
        left -= 1
        if path:
            arrays = _arrays(node)
            yield from (f"{path}/{name}" for name in sorted(arrays) if _has_rows(name, arrays))
        try:
            with quiet():
                waiting += [(f"{path}/{n}".lstrip("/"), sub) for n, sub in sorted(node.groups())]
        except Exception:  # likewise
            continue


def _listed(names: list[str], prefix: str = "") -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(prefix + name) for name in names[:SHOWN]) + more
