"""The commands up, down, node and controller: parse, call, say. Human text on stderr, `--json` on stdout."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from slurm.devcluster import cluster, folder
from slurm.devcluster.config import PREEMPT_MODES, Site
from slurm.devcluster.errors import DevclusterError
from slurm.devcluster.folder import Folder

_STANDARD = Site()


def up(arguments: Sequence[str]) -> int:
    """slurm/devcluster/up."""
    parser = _parser("up", "Start a real Slurm on this machine, in one folder.")
    _site_options(parser)
    parser.add_argument("--json", action="store_true", help="print what it is on stdout")
    options = parser.parse_args(arguments)
    if options.max_submit is not None and not options.accounting:
        parser.error("--max-submit is a limit that Slurm keeps in its accounting: give --accounting too")

    def run() -> None:
        began = time.monotonic()
        names = vars(_STANDARD)
        record = cluster.up(_folder(options), Site(**{name: getattr(options, name) for name in names}))
        _say(_welcome(record, seconds=time.monotonic() - began))
        if options.json:
            print(json.dumps({name: record[name] for name in record if name != "site"}))

    return _told(run)


def down(arguments: Sequence[str]) -> int:
    """slurm/devcluster/down."""
    options = _parser("down", "End the devcluster: its jobs and its daemons, and nothing else.").parse_args(arguments)

    def run() -> None:
        began = time.monotonic()
        ended = cluster.down(_folder(options))
        _say(f"ended {len(ended)} daemons in {time.monotonic() - began:.1f} s; logs stay in {options.dir}/logs")

    return _told(run)


def node(arguments: Sequence[str]) -> int:
    """slurm/devcluster/node."""
    parser = _parser("node", "Kill a node as a power failure does, or bring it back.")
    parser.add_argument("what", choices=("down", "up"))
    parser.add_argument("node", help="n1, n2, ... or c1")
    parser.add_argument("--daemon-only", action="store_true", help="down: kill slurmd, let its jobs go on")
    options = parser.parse_args(arguments)
    if options.what == "up" and options.daemon_only:
        parser.error("--daemon-only is for down")

    def run() -> None:
        if options.what == "up":
            cluster.node_up(_folder(options), options.node)
            _say(f"{options.node} is back")
            return
        count = cluster.node_down(_folder(options), options.node, daemon_only=options.daemon_only)
        _say(
            f"killed {options.node}: slurmd and {count} processes of its jobs; Slurm sees it as DOWN within 15 s or so"
        )
        _say(f"  bring it back: slurm/devcluster/node up {options.node} --dir {options.dir}")

    return _told(run)


def controller(arguments: Sequence[str]) -> int:
    """slurm/devcluster/controller."""
    parser = _parser("controller", "Kill slurmctld, or start it again from its state.")
    parser.add_argument("what", choices=("down", "up"))
    options = parser.parse_args(arguments)

    def run() -> None:
        if options.what == "up":
            cluster.controller_up(_folder(options))
            _say("slurmctld answers again")
            return
        cluster.controller_down(_folder(options))
        _say("killed slurmctld: no Slurm command answers; jobs go on")
        _say(f"  bring it back: slurm/devcluster/controller up --dir {options.dir}")

    return _told(run)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"slurm/devcluster/{name}", description=description, allow_abbrev=False)
    parser.add_argument("--dir", type=Path, default=folder.default_path(), help="its folder (%(default)s)")
    return parser


def _site_options(parser: argparse.ArgumentParser) -> None:
    def number(option: str, what: str, *, least: int = 1) -> None:
        default = getattr(_STANDARD, option.strip("-").replace("-", "_"))
        shown = "no limit" if default is None else default
        parser.add_argument(option, type=_at_least(least), default=default, metavar="N", help=f"{what} ({shown})")

    number("--nodes", "nodes n1, n2, ... besides c1, where coordinators run")
    number("--cpus", "CPUs of each, on paper")
    number("--memory-mb", "memory of each, on paper")
    number("--grace-s", "seconds between the signal to a preempted job and KILL", least=0)
    number("--requeue-delay-s", "seconds that a requeued job waits before it may start again")
    number("--max-array", "MaxArraySize")
    number("--max-submit", "jobs a user may have queued and running; needs --accounting")
    parser.add_argument("--preempt-mode", choices=PREEMPT_MODES, default=_STANDARD.preempt_mode)
    parser.add_argument(
        "--user-signal",
        action=argparse.BooleanOptionalAction,
        default=_STANDARD.user_signal,
        help="a preempted job gets the signal it asked for (preempt_send_user_signal)",
    )
    parser.add_argument("--accounting", action="store_true", help="with MariaDB and slurmdbd, so that sacct works")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def _folder(options: argparse.Namespace) -> Folder:
    return Folder(options.dir.absolute())


def _welcome(record: dict[str, object], *, seconds: float) -> str:
    here = record["dir"]
    nodes = record["nodes"]
    assert isinstance(nodes, list)
    return "\n".join(
        (
            f"Slurm {record['version']} is up in {here} ({seconds:.1f} s): nodes {' '.join(nodes)}",
            f"  use it:      . {here}/env",
            "  look:        sinfo; squeue; scontrol show config",
            "  run:         srun -N2 hostname; sbatch -p low -N2 --wrap 'srun sleep 60'",
            f"  preempt it:  sbatch -p high -N{len(nodes) - 1} --exclusive --wrap 'sleep 20'",
            f"  break it:    slurm/devcluster/node down n1 --dir {here}; slurm/devcluster/controller down --dir {here}",
            f"  end it:      slurm/devcluster/down --dir {here}",
        )
    )


def _told(run: Callable[[], None]) -> int:
    try:
        run()
    except DevclusterError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)
