"""The command line and the environment of `ray start`. Pure.

Ports that others must know are explicit; those of the agents and of workers are 0, so that each binds a free one at
the moment of its use. Memory is watched by the kernel alone: Ray's own monitor would end a worker that the cgroup
allows. A worker that ends leaves its children alone: a supervisor of ours saves after its actor has gone.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.launchers.ray.up.folder import Head
from jobs.launchers.ray.up.size import Size

GCS_LOST_S = 20  # without a GCS that answers, a node is on its own; it never comes back as the same one
INHERITED = ("RAY_", "SLURM", "SBATCH", "SRUN", "PMI")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Those of one node; the last three are the head's."""

    node_manager: int
    object_manager: int
    metrics: int
    gcs: int = 0
    dashboard: int = 0
    client: int = 0

    @property
    def all(self) -> list[int]:
        """Those that are used."""
        every = (self.node_manager, self.object_manager, self.metrics, self.gcs, self.dashboard, self.client)
        return [port for port in every if port]


def start(*, name: str, address: str, ports: Ports, size: Size, temp_dir: str, head: Head | None) -> list[str]:
    """`ray start` of one node at `address`; `head`: the one to join, None for the head itself."""
    words = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block"]
    words += ["--disable-usage-stats", "--log-color=false"]
    options: dict[str, object] = {
        "node-name": name,
        "node-ip-address": address,
        "temp-dir": temp_dir,
        "num-cpus": size.cpus,
        "num-gpus": size.gpus,
        "memory": size.memory_bytes,
        "object-store-memory": size.object_store_bytes,
        "node-manager-port": ports.node_manager,
        "object-manager-port": ports.object_manager,
        "metrics-export-port": ports.metrics,
        "dashboard-agent-listen-port": 0,
        "dashboard-agent-grpc-port": 0,
        "runtime-env-agent-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "include-log-monitor": "false",  # it follows files; what jobs print is in their attempts
    }
    if head is None:
        words += ["--head", "--no-monitor"]
        options |= {
            "port": ports.gcs,
            "dashboard-port": ports.dashboard,
            "dashboard-host": "127.0.0.1",  # from elsewhere through ssh
            "include-dashboard": "true",
            "ray-client-server-port": ports.client,  # not used; else Ray takes 10001
        }
    else:
        options["address"] = head.address
    return [*words, *(f"--{option}={value}" for option, value in options.items())]


def environment(*, token: str, extra: Mapping[str, str], base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Token authentication on; nothing of another Ray's, and of Slurm's only its configuration."""
    kept = {name: value for name, value in base.items() if name == "SLURM_CONF" or not name.startswith(INHERITED)}
    return {
        **kept,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_worker_niceness": "0",  # jobs are what the node is for
        "RAY_kill_child_processes_on_worker_exit": "false",
        "RAY_process_group_cleanup_enabled": "false",
        "RAY_gcs_create_placement_group_retry_max_interval_ms": "200",  # a job starts soon after another has ended
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(GCS_LOST_S),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # jobs had their time before
        **extra,
    }
