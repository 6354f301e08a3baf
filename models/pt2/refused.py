"""The verdict on a ``.pt2`` that holds something unknown."""


class Refused(Exception):  # noqa: N818 (a verdict, turned into UntrustedModelError by archive.py)
    """Something in the archive that is not on the allow-list; the message says what."""
