"""`python -m stx.worker run <attempt dir>` is one rank of one attempt; `check` says whether networks can be built
(shapes as JSON on stdin); `sample` makes a picture (a request as JSON on stdin).

The first import installs the signal handlers, before anything slow: a USR2 that comes while torch loads must not kill.
What happened becomes one outcome record, which beats whatever the scheduler says of the process.
"""

import sys

from jobs import runtime


def main(arguments: list[str]) -> int:
    """The process's exit code: 0 done, 75 yielded, else failed."""
    try:
        runtime.install()
    except OSError as error:
        return runtime.stillborn(error)
    from stx.worker import entry  # after the handlers stand: this is slow

    match arguments:
        case ["run", folder]:
            return entry.run(folder)
        case ["check"]:
            return entry.check(sys.stdin.read())
        case ["sample"]:
            return entry.sample(sys.stdin.read())
    sys.stderr.write("usage: python -m stx.worker run <attempt dir> | check < shapes.json | sample < request.json\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
