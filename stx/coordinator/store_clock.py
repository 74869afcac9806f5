"""What time it is by the clock of the store's file server: ages of what lies there are differences of its times, and no
machine's own clock is compared with it.
"""

import contextlib
import os

from jobs import files
from stx.paths import Store


def now(store: Store) -> tuple[float, int]:
    """The time, and our number there; the newest time that can be seen where nothing may be written."""
    probe = files.new_temp(store.root / "now")
    try:
        probe.touch(exist_ok=False)
        status = probe.stat()
        return status.st_mtime, status.st_uid
    except OSError:
        return max((path.lstat().st_mtime for path in store.root.iterdir()), default=0.0), os.geteuid()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
