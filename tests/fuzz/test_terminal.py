"""What others chose (names, messages, lines of logs) is shown on a terminal and in the report, and never obeyed."""

from dataclasses import replace

from stx import records
from stx.coordinator import journal, status
from stx.coordinator.transitions import step
from stx.errors import StoreError, printable
from stx.spec import Graph
from stx.verbs import console
from tests.fuzz import readers

EVIL = "a\x1b[2J\x1b]0;title\x07\rb\x9b5A\u202e\ud800"
CONTROL = "".join(map(chr, [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]))


def test_control_characters_are_shown_not_obeyed():
    assert printable(EVIL) == r"a\x1b[2J\x1b]0;title\x07\rb\x9b5A\u202e\ud800"
    assert not set(printable(CONTROL)) & set(CONTROL)
    assert printable("ümlaut\n\t中文") == "ümlaut\n\t中文"


def test_an_error_shows_what_it_names():
    assert not set(str(StoreError(EVIL, where=EVIL, hint=EVIL))) & set(CONTROL)


def test_only_our_own_colours_reach_a_terminal(capsys):
    console.say(f"\033[31m{EVIL}\033[0m\033[8mhidden")
    console.out(EVIL)
    said = capsys.readouterr()
    assert said.err == f"\033[31m{printable(EVIL)}\033[0m\\x1b[8mhidden\n"
    assert said.out == printable(EVIL) + "\n"


def test_a_stage_of_a_hostile_name_and_message_is_one_plain_line_of_the_status(tmp_path):
    nodes = [replace(node, name=f"{node.name}\n{EVIL}") for node in readers.GRAPH.nodes]
    graph = Graph.parse(records.parse(records.dumps(Graph("e", tuple(nodes)).dump()), where="graph.json"))
    state, _ = step(journal.new(graph), readers.EVENTS[0])
    readers.attempt(tmp_path).path.mkdir(parents=True)
    beat = {"counter": 1, "phase": EVIL, "time": 1.0, "numbers": {"images": "x", "loss": None, "total": [1]}}
    readers.attempt(tmp_path).heartbeat.write_bytes(records.dumps(beat))
    for line in status.overview(state, store=readers.store(tmp_path)):
        for text in (line.name, line.why, line.phase):
            assert not set(text) & set(CONTROL)
            assert "\n" not in line.name
