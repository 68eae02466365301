"""Types and shapes in the package's signatures, checked at every call while tests run."""

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

__all__ = ["check", "unchecked"]

# An int may stand where a float is asked for, as for mypy.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


@contextmanager
def unchecked() -> Iterator[None]:
    """No checks, for a value outside its type: what does the package itself say to that?"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield
