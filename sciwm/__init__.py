"""A scientific world model for time series on grids and molecules.

Names are loaded when first used (PEP 562): `import sciwm` brings in neither torch nor xarray nor
dask.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciwm import skill
    from sciwm.data.open import open_dataset, open_forecast
    from sciwm.streams.open import stream
    from sciwm.world.model import WorldModel, load

__version__ = "0.1.0"

__all__ = ["WorldModel", "__version__", "load", "open_dataset", "open_forecast", "skill", "stream"]

_HOME = {
    "WorldModel": "sciwm.world.model",
    "load": "sciwm.world.model",
    "open_dataset": "sciwm.data.open",
    "open_forecast": "sciwm.data.open",
    "stream": "sciwm.streams.open",
}


def __getattr__(name: str) -> Any:
    if name == "skill":
        return importlib.import_module("sciwm.skill")
    if name not in _HOME:
        raise AttributeError(
            f"module 'sciwm' has no attribute {name!r}, expected one of {', '.join(__all__)}"
        )
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
