"""Fault injection around the real thing: put this folder on PYTHONPATH, name a folder of tickets in STX_FAULT_TICKETS.

Python imports a module of this name at start-up, so nothing in the product knows of it. What can happen, the form of a
ticket and what is recorded: injection/tickets.py.
"""

import os

if os.environ.get("STX_FAULT_TICKETS"):
    import injection

    injection.install(os.environ["STX_FAULT_TICKETS"])
