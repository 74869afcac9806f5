"""The verbs about a Ray cluster of our own, for stx/cli.py: `stx ray up | status | down` and `stx dashboard`."""

from typing import Annotated

import typer

from stx.arguments import Cluster, Json, Store

app = typer.Typer(
    help="A Ray cluster of its own for a cluster file: on this machine, or in one Slurm allocation.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@app.command("up")
def up(
    cluster: Cluster = None,
    store: Store = None,
    nodes: Annotated[int | None, typer.Option("--nodes", help="How many, instead of ray.nodes.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="The allocation's limit: 30m, 4h, 2d.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is asked for.")] = False,
) -> None:
    """Bring up the Ray cluster of a cluster file, and wait until all its nodes are there.

    Example: stx ray up --cluster ray-on-slurm.yaml --nodes 2 --time 4h
    """
    from stx.verbs import ray as verb

    verb.up(cluster=cluster, store=store, nodes=nodes, time_limit=time, wait=not no_wait)


@app.command("status")
def status(cluster: Cluster = None, store: Store = None, as_json: Json = False) -> None:
    """Show whether it is up, where it answers, and its nodes.

    Example: stx ray status --cluster ray-on-slurm.yaml
    """
    from stx.verbs import ray as verb

    verb.status(cluster=cluster, store=store, as_json=as_json)


@app.command("down")
def down(cluster: Cluster = None, store: Store = None) -> None:
    """End it: jobs save and yield first.

    Example: stx ray down --cluster ray-on-slurm.yaml
    """
    from stx.verbs import ray as verb

    verb.down(cluster=cluster, store=store)


def dashboard(
    cluster: Cluster = None,
    store: Store = None,
    as_json: Json = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say where it is.")] = False,
) -> None:
    """Say where the dashboard of the Ray cluster is, and how to log in; on its own machine it opens.

    Example: stx dashboard --cluster ray-on-slurm.yaml
    """
    from stx.verbs import dashboard as verb

    verb.run(cluster=cluster, store=store, as_json=as_json, browser=not no_browser)
