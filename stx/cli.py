"""The command line: declares the verbs, and turns errors into one clear message and an exit code.

    0 ok   1 unexpected   2 usage or configuration   3 a stage failed   4 backend unreachable   6 lease held
    130 interrupted

Data goes to stdout, words for people to stderr. A verb's body is in stx/verbs and imported when the verb runs, so that
`stx --help` costs the import of typer and nothing else; nothing on this side ever imports torch.
"""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stx import ray_commands
from stx.arguments import Cluster, Every, File, Json, Pattern, Sets, Stage, Stages, Store

app = typer.Typer(
    help="Self-Transcendence experiments: one YAML file, from images to report, resumable at any moment.",
    epilog="Start with: stx plan configs/quickstart.yaml",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(ray_commands.app, name="ray")
app.command()(ray_commands.dashboard)


@app.command()
def plan(
    file: File,
    sets: Sets = None,
    cluster: Cluster = None,
    store: Store = None,
    as_json: Json = False,
    every: Every = False,
    requests: Annotated[
        bool, typer.Option("--requests", help="Also the exact request of every job, as the scheduler would get it.")
    ] = False,
) -> None:
    """Say what a submit would do, why, and what it would cost. Writes nothing.

    Example: stx plan configs/quickstart.yaml --set stages.phase2.steps=1000
    """
    from stx.verbs import plan as verb

    verb.run(file, sets=sets or (), cluster=cluster, store=store, as_json=as_json, every=every, requests=requests)


@app.command()
def submit(
    file: File,
    sets: Sets = None,
    cluster: Cluster = None,
    store: Store = None,
    detach: Annotated[
        bool | None,
        typer.Option(
            "--detach/--foreground", help="Return at once | stay and show a table. Else as the cluster file says."
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Accept that the file differs from what was submitted under its name.")
    ] = False,
    accept_code: Annotated[
        bool, typer.Option("--accept-code", help="Resume from checkpoints that other science code wrote.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="First run two steps of everything, as NAME-smoke; go on if all is well.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="One pass: look, start what is ready, leave. For cron; jobs run on.")
    ] = False,
    within: Annotated[str, typer.Option("--within", hidden=True)] = "",
    copy_of: Annotated[Path | None, typer.Option("--copy-of", hidden=True)] = None,
) -> None:
    """Run an experiment, or go on with it where it stopped.

    What is finished is never computed twice. Ctrl-C once: every stage saves and yields. Twice: leave, jobs run on.

    Example: stx submit configs/quickstart.yaml
    """
    from stx.verbs import submit as verb
    from stx.verbs.wishes import Wishes

    wishes = Wishes(
        file=file,
        sets=tuple(sets or ()),
        cluster=cluster,
        store=store,
        detach=detach,
        update=update,
        accept_code=accept_code,
        smoke=smoke,
        once=once,
        within=within,
        copy_of=copy_of,
    )
    raise typer.Exit(verb.run(wishes))


@app.command()
def doctor(
    cluster: Cluster = None,
    store: Store = None,
    as_json: Json = False,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Slurm: no one-minute job on a compute node.")] = False,
    forget: Annotated[str | None, typer.Option("--forget-node", metavar="NODE", help="Forgive a bad node.")] = None,
) -> None:
    """Check this machine, the store and the cluster: each line ok, warn or FAIL, and what to do. Exit 2 for a FAIL.

    Example: stx doctor --cluster mycluster.yaml
    """
    from stx.verbs import doctor as verb

    raise typer.Exit(verb.run(cluster=cluster, store=store, as_json=as_json, probe=not no_probe, forget=forget))


@app.command()
def gc(
    cluster: Cluster = None,
    store: Store = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without asking.")] = False,
    pin: Annotated[str | None, typer.Option("--pin", metavar="STAGE", help="Keep a stage for good.")] = None,
    unpin: Annotated[str | None, typer.Option("--unpin", metavar="STAGE", help="Take a pin back.")] = None,
    forget: Annotated[
        str | None, typer.Option("--forget", metavar="EXPERIMENT", help="Also what only this experiment wanted.")
    ] = None,
    others: Annotated[bool, typer.Option("--others", help="Also what others made; for the store's owner.")] = False,
    as_json: Json = False,
) -> None:
    """Show what of the store may go: what no experiment wants, and leftovers. Asks before it removes anything.

    Example: stx gc --forget quickstart-smoke
    """
    from stx.verbs import gc as verb
    from stx.verbs import pin as pinning

    if pin is not None or unpin is not None:
        pinning.run(store=store, pin=pin, unpin=unpin, others=yes or as_json or others or forget is not None)
        return
    raise typer.Exit(verb.run(store=store, cluster=cluster, yes=yes, forget=forget, others=others, as_json=as_json))


@app.command()
def status(
    pattern: Pattern = None,
    store: Store = None,
    watch: Annotated[bool, typer.Option("--watch", help="Redraw until nobody drives it.")] = False,
    states: Annotated[str | None, typer.Option("--state", help="Only these: --state FAILED,RUNNING.")] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="By name, state, eta or rate, the slowest first. Else inputs first.")
    ] = None,
    every: Every = False,
    as_json: Json = False,
) -> None:
    """Show stages: state with its cause, progress, speed, ETA, loss. Needs no running coordinator.

    Example: stx status quickstart --watch
    """
    from stx.verbs import listing
    from stx.verbs import status as verb

    wish = listing.parse(states, sort=sort, every=every)
    verb.run(pattern, store=store, watch=watch, as_json=as_json, wish=wish)


@app.command()
def logs(
    stage: Stage,
    store: Store = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the attempt is over.")] = False,
    rank: Annotated[int, typer.Option("--rank", help="Which rank's output.")] = 0,
    attempt: Annotated[int | None, typer.Option("--attempt", help="Which attempt; the last one by default.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="The last attempt that failed.")] = False,
) -> None:
    """Print what a stage printed.

    Example: stx logs phase1 -f
    """
    from stx.verbs import logs as verb

    verb.run(stage, store=store, follow=follow, rank=rank, attempt=attempt, failed=failed)


@app.command()
def show(
    stage: Stage,
    against: Annotated[
        str | None, typer.Option("--against", help="Another stage: what differs, in options and inputs, and why.")
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show all about one stage: options, inputs, attempts, results; or how it differs from another one.

    Example: stx show phase1
    """
    from stx.verbs import show as verb

    verb.run(stage, against=against, store=store, as_json=as_json)


@app.command()
def sample(
    run: Annotated[str, typer.Argument(help="A train stage, one point of its sweep, or its key's first 4+ digits.")],
    labels: Annotated[
        str, typer.Option("--labels", help="Class numbers or names: 3,3,7. Or all: one of each.")
    ] = "all",
    cfg: Annotated[float | None, typer.Option("--cfg", help="Guidance; 1 is none.")] = None,
    interval: Annotated[
        str | None, typer.Option("--interval", help="Where guidance acts: LOW,HIGH in t (t=1 is noise).")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of the solver.")] = None,
    solver: Annotated[str | None, typer.Option("--solver", help="The solver, as in a sample stage.")] = None,
    at: Annotated[int | None, typer.Option("--at", help="The milestone, in steps; the newest finished one.")] = None,
    num: Annotated[int | None, typer.Option("--num", help="Images in all; labels are taken in turn.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise; image j has the same in every grid.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The PNG; else EXPERIMENT-RUN-IMAGES.png here.")
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Draw images from a run's newest milestone: a grid as PNG. Works while the run goes on.

    Example: stx sample phase2:guidance=5,seed=0 --labels 3,3,7 --cfg 4 --interval 0,0.65
    """
    from stx.verbs import sample as verb

    sampler = {"guidance": cfg, "interval": verb.interval_of(interval), "steps": steps, "solver": solver}
    wishes = verb.Wishes(
        run=run,
        labels=labels,
        sampler=sampler,
        at=at,
        num=num,
        seed=seed,
        output=output,
        store=store,
        as_json=as_json,
    )
    verb.run(wishes)


@app.command()
def cancel(pattern: Stages, store: Store = None, cluster: Cluster = None) -> None:
    """End the jobs of stages and start them no more. Deletes nothing; `stx retry` takes it back.

    Example: stx cancel 'phase2:*'
    """
    from stx.verbs import control

    control.run("cancel", pattern, store=store, cluster=cluster)


@app.command()
def retry(
    pattern: Stages,
    store: Store = None,
    cluster: Cluster = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Also declare attempts lost that no launcher within reach can see.")
    ] = False,
) -> None:
    """Give failed or cancelled stages a new budget of attempts.

    Example: stx retry phase1
    """
    from stx.verbs import control

    control.run("retry", pattern, store=store, cluster=cluster, take_over=take_over)


@app.command()
def report(
    experiment: Annotated[str, typer.Argument(help="The experiment's name.")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Write the report (Markdown, and one HTML page) over what is finished, and print both paths.

    Example: stx report quickstart
    """
    from stx.verbs import report as verb

    verb.run(experiment, store=store, as_json=as_json)


@app.command()
def export(
    experiment: Annotated[str, typer.Argument(help="The experiment's name.")],
    store: Store = None,
    tensorboard: Annotated[
        str | None, typer.Option("--tensorboard", help="Write event files below this folder.", metavar="DIR")
    ] = None,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Send to Weights & Biases; WANDB_MODE=offline only keeps.")
    ] = False,
    project: Annotated[str | None, typer.Option("--project", help="The W&B project; stx by default.")] = None,
    as_json: Json = False,
) -> None:
    """Export curves and scores to TensorBoard or Weights & Biases. Again: only what is new.

    Example: stx export quickstart --tensorboard runs
    """
    from stx.verbs import export as verb

    verb.run(experiment, store=store, tensorboard=tensorboard, wandb=wandb, project=project, as_json=as_json)


@app.command()
def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print the script that completes verbs, options, and names of experiments and stages.

    Example: eval "$(stx completion bash)"
    """
    from stx.verbs import completion as verb

    sys.stdout.write(verb.script(shell))


@app.command(hidden=True)
def complete(line: str) -> None:
    """What may stand at the end of a line: asked by the scripts of `stx completion`."""
    from stx.verbs import completion as verb

    sys.stdout.writelines(f"{one}\n" for one in verb.complete(typer.main.get_command(app), line))


def main() -> None:
    """Run a verb; every way out has an exit code, and none but a bug of ours has a traceback (in a file)."""
    from stx.errors import StxError

    try:
        sys.exit(app(standalone_mode=False, prog_name="stx") or 0)
    except StxError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        if show:
            show()
        sys.exit(error.exit_code)
    except OSError as error:
        sys.stderr.write(f"{failed_system_call(error)}\n")
        sys.exit(2 if is_of_the_disk(error) else 1)
    except Exception as error:  # noqa: BLE001 - the last resort of a program
        sys.stderr.write(f"{unexpected(error)}\n")
        sys.exit(1)


def is_of_the_disk(error: OSError) -> bool:
    """Whether a disk is full or broken: nobody's mistake in here."""
    from jobs.outcome import cause_of

    return cause_of(error.errno) is not None


def failed_system_call(error: OSError) -> str:
    """What a disk or a file system did, in one message; any other one is unexpected."""
    from stx.errors import StoreError

    if not is_of_the_disk(error):
        return unexpected(error)
    where = str(error.filename or "the store, or a file system that this command uses")
    hint = "nothing is lost: when it works again, give the same command again"
    return f"error: {StoreError(str(error.strerror), where=where, hint=hint)}"


def unexpected(error: Exception) -> str:
    """One line for people, and the traceback in a file."""
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="stx-error-", suffix=".txt", delete=False) as stream:
            stream.write(text)
    except OSError:  # no room for it
        return f"unexpected error: {type(error).__name__}: {error}\n{text}"
    return f"unexpected error: {type(error).__name__}: {error}\n  the traceback is in {stream.name}"


if __name__ == "__main__":
    main()
