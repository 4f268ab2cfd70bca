"""``python -m sweepvi.probe``, and ``sweepvi.probe(...)`` too where this module has been imported.

Importing a module puts it into its package under its name. There, this one must not hide the function of that name:
so it can be called like it. The function is :func:`sweepvi.probing.api.probe`.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _CallableModule(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from sweepvi.probing.api import probe

        return probe(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    from sweepvi.probing.command import main

    sys.exit(main(sys.argv[1:]))
