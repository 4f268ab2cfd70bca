"""NCCL with one rank: where there is a GPU, a fit on it; that several agree, gloo shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rank_runs import run

SCRIPT = """
import json, sys, torch, sweepvi
from rank_fits import fit, settings, told
result = fit("nccl", device="cuda", steps=20, **settings("adam", "global_norm"))
open(sys.argv[1], "w").write(json.dumps(told(result)))
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_fit_on_one_gpu(tmp_path):
    file = tmp_path / "told.json"
    [(status, _, errors)] = run("-c", SCRIPT, str(file), ranks=1)
    assert status == 0, errors
    told = json.loads(Path(file).read_text())
    assert (told["status"], told["world_size"], told["agree"]) == ("finished", 1, True)
