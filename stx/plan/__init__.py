"""The plan: an experiment as a graph of keyed stages, a verb with a reason for each, and the bill. Nothing is written.

expand   experiment and cluster -> graph (all validation)         join, drafts: its parts
survey   what the store has of each key;  lines: verbs and reasons
bill     FLOPs, hours, bytes, steps, epochs;  shapes: what the worker checks on the meta device
"""

from stx.plan.bill import Bill, BillRow, TeacherBill, bill, shapes
from stx.plan.expand import expand
from stx.plan.verbs import PlanLine, Seen, Verb, changes, lines, survey

__all__ = [
    "Bill",
    "BillRow",
    "PlanLine",
    "Seen",
    "TeacherBill",
    "Verb",
    "bill",
    "changes",
    "expand",
    "lines",
    "shapes",
    "survey",
]
