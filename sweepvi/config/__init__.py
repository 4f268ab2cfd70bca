"""Configuration: where it is, how the command line composes it, what a file may not contain.

Hydra composes. It is asked before ``hydra.main`` is entered, so that everything wrong is known before a folder is
made; and it is never shown a problem that can be said better than Hydra says it. No torch is imported here.
"""

from sweepvi.config.by_hydra import version_base
from sweepvi.config.compose import Composition, compose
from sweepvi.config.files import read_run, scan
from sweepvi.config.locate import CODE_KEYS, SEARCH, SELECTIONS, SWEEPING, conf_dir, groups, options

__all__ = [
    "CODE_KEYS",
    "SEARCH",
    "SELECTIONS",
    "SWEEPING",
    "Composition",
    "compose",
    "conf_dir",
    "groups",
    "options",
    "read_run",
    "scan",
    "version_base",
]
