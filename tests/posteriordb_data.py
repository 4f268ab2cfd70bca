"""Small made-up data for the ten posteriors, in posteriordb's form, and a folder of them."""

from __future__ import annotations

import json
from pathlib import Path

from sweepvi.models.posteriordb.component import POSTERIORS

DATA = {
    "arK": {"K": 2, "T": 6, "y": [0.3, -0.2, 0.5, 1.1, 0.4, -0.7]},
    "eight_schools_noncentered": {"J": 3, "y": [28, 8, -3], "sigma": [15, 10, 16]},
    "garch11": {"T": 6, "y": [4.9, 5.3, 5.1, 4.2, 6.4, 5.5], "sigma1": 0.5},
    "gp_pois_regr": {"N": 4, "x": [-4, -1, 1, 3], "y": [4.8, 1.6, 3.0, 5.3], "k": [9, 3, 0, 4]},
    "hmm_example": {"N": 6, "K": 2, "y": [3.8, 8.2, 9.4, 7.2, 2.1, 3.3]},
    "kidscore_interaction": {
        "N": 4,
        "kid_score": [65, 98, 85, 83],
        "mom_hs": [1, 1, 0, 1],
        "mom_iq": [121.1, 89.4, 115.4, 99.4],
    },
    "kilpisjarvi": {
        "N": 5,
        "x": [3952, 3953, 3954, 3955, 3956],
        "y": [8.3, 10.9, 9.4, 8.1, 8.1],
        "xpred": 2016,
        "pmualpha": 9.31,
        "psalpha": 100,
        "pmubeta": 0,
        "psbeta": 0.0333,
    },
    "lotka_volterra": {"N": 3, "ts": [1, 2, 4], "y_init": [30, 4], "y": [[47.2, 6.1], [70.2, 9.8], [36.3, 41.4]]},
    "low_dim_gauss_mix": {"N": 5, "y": [-3.6, 3.1, 3.5, 1.6, -2.6]},
    "nes": {
        "N": 5,
        "age_discrete": [3, 2, 1, 4, 3],
        "educ1": [3, 3, 4, 2, 1],
        "gender": [1, 2, 1, 2, 2],
        "income": [3, 4, 3, 2, 5],
        "partyid7": [3, 7, 6, 1, 2],
        "race_adj": [1.0, 1.0, 2.0, 1.0, 1.0],
        "real_ideo": [5, 6, 4, 3, 2],
        "year": [2000, 2000, 2000, 2000, 2000],
    },
}
"""Short name of a posterior → its data."""


def made_up(folder: Path) -> Path:
    """Write the data as one folder a posterior into ``folder``."""
    for name, data in DATA.items():
        place = folder / POSTERIORS[name].name
        place.mkdir(parents=True)
        (place / "data.json").write_text(json.dumps(data))
    return folder
