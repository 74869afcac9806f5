"""`stx dashboard`: where Ray's dashboard is, how to reach it, and how to log in; it opens where a browser is."""

import webbrowser

from jobs import processes
from stx.errors import BackendError
from stx.verbs import console
from stx.verbs.ray import own_of


def run(*, cluster: str | None, store: str | None, as_json: bool, browser: bool) -> None:
    """The verb."""
    where, _, own = own_of(cluster, store)
    look = own.look()
    if look.record is None:
        raise BackendError(f"no Ray cluster of {where.name} is up ({look.standing}): {look.words}", hint="stx ray up")
    found = look.record
    local = processes.runs(found.keeper)  # the first node is this machine
    if as_json:
        console.out_json(
            {"url": found.dashboard, "tunnel": None if local else found.tunnel, "token": found.token, "here": local}
        )
        return
    console.out(found.dashboard)
    if not local:
        console.say(f"it listens on its first node only; from your machine: {found.tunnel}   (then open the URL)")
    console.say(f"to log in, give the token when it asks: cat {found.token}")
    if local and browser and console.interactive():
        webbrowser.open(found.dashboard)
