"""Sends one signal from inside one rank, just before it publishes its first unit of rows.

Put this folder on PYTHONPATH and set STX_TEST_SIGNAL to "<rank> KILL" (the rank dies) or "<rank> USR2" (the supervisor
is asked to stop all ranks; the rank goes on when it has heard of it). Python imports a module of this name at start-up,
so nothing in the product knows of it.
"""

import os
import re
import signal
import sys
import time

UNIT = re.compile(r"(train|features|samples)-\d+\.(tar|npy)")


def _install(name):
    real = os.link

    def link(source, target, **options):
        if UNIT.fullmatch(os.path.basename(target)):
            os.link = real
            if name == "KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getppid(), signal.SIGUSR2)
            while not sys.modules["jobs.runtime"].stop_requested():
                time.sleep(0.001)
        return real(source, target, **options)

    os.link = link


_rank, _, _name = os.environ.get("STX_TEST_SIGNAL", "").partition(" ")
if _name and os.environ.get("RANK") == _rank:
    _install(_name)
