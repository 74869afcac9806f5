"""What the state machine goes by of a cluster file."""

from collections.abc import Callable

from stx.config.cluster import Cluster
from stx.coordinator.attempts import Kind
from stx.coordinator.events import Policy
from stx.spec import Graph, Node


def policy(cluster: Cluster, graph: Graph, *, load_kind: Callable[[str], Kind]) -> Policy:
    """Its numbers; and where jobs find their own places (not on Slurm, which has its own idea of fairness), which kinds
    wait for GPUs: others need not wait behind them.
    """
    first = {node.spec.kind: node for node in graph.nodes} if cluster.launcher != "slurm" else {}
    return Policy(
        retries=cluster.retries.model_dump(),
        backoff_s=tuple(cluster.backoff_s),
        queued=cluster.limits.queued,
        running=cluster.limits.running,
        stop_lead_s=cluster.stop_lead_s,
        apart=tuple(sorted(kind for kind, node in first.items() if _takes_gpus(load_kind(kind), node, cluster))),
    )


def _takes_gpus(kind: Kind, node: Node, cluster: Cluster) -> bool:
    return any(layout.get("gpus_per_rank") for layout in kind.layouts(node, cluster))
