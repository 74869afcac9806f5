"""The program every launcher starts: `python -m jobs.exec [--slots DIR | --slurm | --ray --watch-fd N] <attempt dir>`.
jobs/supervisor.py says what it does.

It is apart from the supervisor so that the signals are blocked before anything else is imported: one that arrives in
the first milliseconds of a job would end it, instead of waiting until somebody handles it.
"""

import signal
import sys


def main() -> int:
    """Block the signals that mean something to a job, then supervise; returns the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM})
    from jobs import supervisor

    return supervisor.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
