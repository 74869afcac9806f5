"""A Ray cluster of our own: on this machine, or inside one Slurm allocation.

    stx ray up -> one supervisor per node (node.py) -> `ray start --block` as its child -> Ray's own daemons

folder    <store>/ray/<cluster name>/NNN/: what was asked for, what every node says, and how it was over
node      the supervisor: starts Ray, watches it, lets the jobs save, ends everything it started
here      supervisors as processes of this machine
there     supervisors as the tasks of an allocation, one per node; submission.py has submitit

Nothing here imports ray: daemons are children, and questions go to the dashboard's HTTP interface. Never `ray stop`
(it ends every Ray of the node) and never `ray symmetric-run` (it exits 0 when `ray start` fails): success is a file.
"""
