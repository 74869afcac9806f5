"""Faults at the operations of one process on the files of a store: tickets (what and when), operations (where), streams
(files that Python opens without os.open), clock.
"""

from injection import clock, operations, streams, tickets


def install(folder: str) -> None:
    """Wrap this process's file operations; take the first ticket that is meant for it, if there is one."""
    injector = tickets.Injector(folder, ticket=tickets.take(folder), clock=clock.install())
    operations.install(injector)
    streams.install(injector)
