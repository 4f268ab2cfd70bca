"""A worker's side of the conversation with the benchmark: one JSON object a line, in and out.

Standard library only, because it runs in environments that have little in common.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def serve(answers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests until the input ends.

    A request names its answer under ``do``; the rest are keyword arguments. A reply is what the answer returns, with
    the ``seconds`` and the ``cpu`` seconds that it took, and the largest resident memory of the process so far,
    ``rss`` in bytes; or ``error``.
    """
    # What libraries print is no reply.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        start, cpu = time.perf_counter(), time.process_time()
        try:
            reply = answers[request.pop("do")](**request)
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        reply |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "rss": largest_memory()}
        print(json.dumps(reply), file=replies, flush=True)


def largest_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    try:
        # Not ru_maxrss: on Linux that counts the parent's pages from before the exec.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
