"""A scientific world model for time series on grids and molecules.

Names are loaded when first used (PEP 562): `import sciwm` brings in neither torch nor xarray nor
dask.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Order",
    "Reading",
    "WorldModel",
    "__version__",
    "load",
    "open_dataset",
    "open_forecast",
    "skill",
    "stream",
]

if TYPE_CHECKING:
    from sciwm import skill
    from sciwm.data.open import open_dataset, open_forecast
    from sciwm.streams.choices import Order, Reading
    from sciwm.streams.open import stream
    from sciwm.world.model import WorldModel, load
else:
    # By hand: with lazy_loader 0.6 an unknown name gives "No sciwm attribute open_datset", without
    # the names there are; its `attach` hides the names from mypy, and its `attach_stub` needs a
    # second file. An `else`, so that mypy finds unknown names, too.
    _HOME = {
        "Order": "sciwm.streams.choices",
        "Reading": "sciwm.streams.choices",
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
