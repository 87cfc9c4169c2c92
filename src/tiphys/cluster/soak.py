"""`python -m tiphys.cluster.soak`: simulated clusters with faults, seed after seed, until one breaks a promise.

Prints a line a run; at the first failure the stories of the objects concerned and the command that repeats it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from collections.abc import Sequence

import click

from tiphys.base.virtualloop import VirtualLoop, run_virtual
from tiphys.cluster.scenarios import SCENARIOS
from tiphys.cluster.trial import run_scenario


def soak(names: Sequence[str], seeds: Sequence[int] | itertools.count[int], faults: int, bad_network: bool) -> bool:
    """Run every scenario with every seed; return False at the first failure."""
    for seed in seeds:
        for name in names:
            started_s = time.process_time()
            ended_at_s = 0.0

            async def run(name: str = name, seed: int = seed) -> str:
                nonlocal ended_at_s
                history = await run_scenario(name, seed, faults=faults, bad_network=bad_network)
                loop = asyncio.get_running_loop()
                assert isinstance(loop, VirtualLoop)
                ended_at_s = loop.time()
                return f"{len(history.changes)} writes, history {history.digest()[:16]}"

            repeat = f"python -m tiphys.cluster.soak --scenario {name} --seed {seed} --faults {faults}"
            repeat += " --bad-network" if bad_network else ""
            try:
                told = run_virtual(run())
            except AssertionError as error:
                click.echo(f"{error}\n\nFAILED; again: {repeat}")
                return False
            cpu_s = time.process_time() - started_s
            click.echo(f"{name} seed {seed}: {ended_at_s:.0f} virtual seconds in {cpu_s:.2f} s of CPU, {told}")
    return True


@click.command()
@click.option("--scenario", "names", multiple=True, type=click.Choice(list(SCENARIOS)), help="Default: all but large.")
@click.option("--seed", type=int, help="One seed instead of seed after seed.")
@click.option("--first-seed", type=int, default=0, show_default=True, help="Where to begin counting.")
@click.option("--seeds", type=int, help="How many seeds; default: for ever.")
@click.option("--faults", type=int, default=8, show_default=True, help="How many faults beside each scenario.")
@click.option("--bad-network", is_flag=True, help="Every line loses, delays and breaks, all the time.")
@click.option("--verbose", is_flag=True, help="Print what the components log.")
def main(
    names: tuple[str, ...], seed: int | None, first_seed: int, seeds: int | None, faults: int, bad_network: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Put simulated clusters through scenarios with seeded faults."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.CRITICAL, format="%(name)s %(levelname)s %(message)s"
    )
    chosen = names or tuple(name for name in SCENARIOS if name != "large")
    numbers: Sequence[int] | itertools.count[int] = itertools.count(first_seed)
    if seed is not None:
        numbers = [seed]
    elif seeds is not None:
        numbers = range(first_seed, first_seed + seeds)
    sys.exit(0 if soak(chosen, numbers, faults, bad_network) else 1)


if __name__ == "__main__":
    main()
