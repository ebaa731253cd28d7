"""What it costs to judge a program that a model wrote, and how long one that sleeps is waited for.

python benchmarks/sandbox.py     writes benchmarks/results/sandbox.json

Programs one after another, as `humaneval` grades them, and side by side on as many threads as there are
cores, as GRPO does. Each is three processes that the kernel shuts in, and takes most of its time to start.
"""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from record import record

from jaxtrain.tasks import sandbox

PROGRAMS = 60
TESTS = "assert double(2) == 4\nassert [double(n) for n in range(20)] == list(range(0, 40, 2))"


def seconds(program: str) -> float:
    begun = time.perf_counter()
    sandbox.run(program, tests=TESTS, names=["double"])
    return time.perf_counter() - begun


def main() -> None:
    double, sleeps = "def double(x): return 2 * x", "import time\ntime.sleep(600)"
    seconds(double)
    alone = [seconds(double) for _ in range(PROGRAMS)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as side_by_side:
        list(side_by_side.map(seconds, [double] * PROGRAMS))
    together = (time.perf_counter() - begun) / PROGRAMS
    found = {
        "programs": PROGRAMS,
        "median_seconds": statistics.median(alone),
        "slowest_seconds": max(alone),
        "seconds_each_side_by_side": together,
        "seconds_of_a_sleeper": seconds(sleeps),
        "load_average": os.getloadavg()[0],
    }
    record("sandbox", [], {name: round(value, 3) for name, value in found.items()})


if __name__ == "__main__":
    main()
