"""Everything a person can get wrong, through the real command line: one clear error, exit code 2, an untouched store.

An error names the place (file:line: field = value), says what is wrong, and what would be valid or what to do.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MICRO = (Path(__file__).parent / "micro.yaml").read_text()
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

COMMAND = "name: cmd\nstages:\n  one: {kind: command, argv: [sh, -c, 'echo 1 > $STX_OUTPUT/a'], version: a}\n"


def swapped(old: str, new: str) -> str:
    assert old in MICRO, old
    return MICRO.replace(old, new, 1)


def swept(sweep: str) -> str:
    return swapped(
        "    latents: latents\n    alignment:\n", f"    latents: latents\n    sweep: {sweep}\n    alignment:\n"
    )


PHASE1 = "head_block: 1, window: [0.4, 0.7]"
EXPERIMENTS = {
    "unknown section": (f"nmae: x\n{MICRO}", "e.yaml:1: nmae = x", 'did you mean "name"?'),
    "unknown key": (swapped("steps: 40", "stpes: 40"), "e.yaml:10: defaults.train.stpes = 40", 'mean "steps"?'),
    "unknown method": (
        swapped("method: guided_teacher", "method: guided_techer"),
        "e.yaml:28: stages.phase2.alignment.method = guided_techer",
        'did you mean "guided_teacher"?',
    ),
    "unknown kind": (swapped("kind: features", "kind: featurs"), "e.yaml:23: stages.features.kind", '"features"?'),
    "unknown stage": (
        swapped("runs: [phase1, phase2]", "runs: [phase1, phas2]"),
        "e.yaml:36: stages.samples.runs[1] = phas2",
        'did you mean "phase2"?',
    ),
    "stage of a wrong kind": (
        swapped("latents: latents\n    seed", "latents: images\n    seed"),
        "e.yaml:19: stages.phase1.latents = images",
        "known: latents",
    ),
    "wrong type": (swapped("global_batch: 16", "global_batch: many"), "global_batch = many", "must be a whole number"),
    "wrong type, true": (swapped("draws: 1", "draws: true"), "e.yaml:23: stages.features.draws = true", "whole number"),
    "duplicate key": (swapped("lr: 1.0e-3", "lr: 1.0e-3\n    lr: 2"), "e.yaml:8: defaults.train.lr", "in line 7"),
    "duplicate stage": (swapped("  judge:", "  vae: {kind: images}\n  judge:"), "e.yaml:16: stages.vae", "in line 14"),
    "cycle": (
        swapped("run: phase1,", "run: phase2,"),
        "e.yaml:22: stages.teacher",
        "teacher -> phase2 -> teacher",
    ),
    "teacher_block": (
        swapped("teacher_block: 2\n", "teacher_block: 31\n"),
        "e.yaml:32: stages.phase2.alignment.teacher_block = 31",
        "must be in 1..2",
    ),
    "student_block": (
        swapped("student_block: 1", "student_block: 3"),
        "e.yaml:31: stages.phase2.alignment.student_block = 3",
        "the student SiT-Mu/2 has 2 blocks, so student_block must be in 1..2",
    ),
    "head_block": (swapped("head_block: 1", "head_block: 3"), "e.yaml:21", "head_block must be in 1..2"),
    "window outside": (swapped(PHASE1, "head_block: 1, window: [0.4, 1.7]"), "window = [0.4, 1.7]", "high <= 1"),
    "window reversed": (swapped(PHASE1, "head_block: 1, window: [0.7, 0.4]"), "window = [0.7, 0.4]", "low < high"),
    "half a window": (swapped(PHASE1, "head_block: 1, window: [0.7]"), "window = [0.7]", "for example [0.4, 0.7]"),
    "two windows": (
        swapped("teacher_block: 2, window: [0.4, 0.7]", "teacher_block: 2, window: [0.3, 0.7]"),
        "e.yaml:34: stages.phase2.alignment.window = [0.4, 0.7]",
        "they must be equal",
    ),
    "infinite guidance": (swapped("guidance: 5.0", "guidance: .inf"), "alignment.guidance = .inf", "must be finite"),
    "guidance of 1e999": (swapped("guidance: 5.0", "guidance: 1e999"), "alignment.guidance = 1e999", "must be finite"),
    "guidance as text": (swapped("guidance: 5.0", "guidance: 'nan'"), "alignment.guidance = nan", "must be a number"),
    "sweep path": (
        swept("{alignment.guidence: [1, 5]}"),
        "e.yaml:27: stages.phase2.sweep.alignment.guidence[0] = 1",
        'did you mean "guidance"?',
    ),
    "sweep below a word": (swept("{model.x: [1]}"), "e.yaml:27: stages.phase2.sweep.model.x[0] = 1", "a name such as"),
    "empty sweep": (swept("{seed: []}"), "e.yaml:27: stages.phase2.sweep.seed = []", "at least one value"),
    "report": (swapped("y: frechet_distance", "y: fid"), "e.yaml:43: report.y = fid", "known: frechet_distance"),
    "an open bracket": (swapped("defaults:", "defaults: ["), "e.yaml:5", "that starts in line 3"),
    "a tab": ("name: x\n\tstages: 3\n", "e.yaml:2", "tab character"),
    "empty file": ("", "e.yaml", "the file is empty\n  it has name"),
    "a list": ("- 1\n", "e.yaml", "is a mapping"),
    "no stages": ("name: x\n", "e.yaml", '"stages" is required'),
    "extends nothing": ("extends: no.yaml\nname: a\n", "e.yaml:1: extends = no.yaml", "no such file"),
    "a name that leaves the store": (swapped("name: micro", "name: ../x"), 'e.yaml:2: name = "../x"', "lower-case"),
    "a file that is not there": (
        "name: a\nstages:\n  t: {kind: freeze, checkpoint: none.safetensors, version: x, model: SiT-Mu/2}\n",
        "e.yaml:3: stages.t.checkpoint",
        "none.safetensors does not exist",
    ),
}
CLUSTERS = {
    "unknown key": ("\nlaucher: local\n", "c.yaml:2: laucher = local", 'did you mean "launcher"?'),
    "not built": ("launcher: slurm\n", "c.yaml:1: launcher = slurm", "valid: local"),
    "unknown kind": ("stages: {trian: {ranks: 2}}\n", "c.yaml:1: stages.trian", 'did you mean "train"?'),
    "wrong time": ("poll_s: fast\n", "c.yaml:1: poll_s = fast", "for example 45s"),
    "no W divides": (
        "stages: {train: {layouts: [{ranks_per_node: 3}]}}\n",
        "e.yaml:6: defaults.train.global_batch = 16",
        "15 or 18 would do",
    ),
    "one layout of two": (
        "stages: {train: {layouts: [{ranks_per_node: 2}, {ranks_per_node: 2, micro_batch: 5}]}}\n",
        "e.yaml:6: defaults.train.global_batch = 16",
        "10 or 20 would do",
    ),
    "too large": ("stages: {default: {cpus_per_rank: 500}}\n", "cluster c: stages.images", "ask for less"),
    "malformed": ("a: [\n", "c.yaml:2", "not well-formed YAML"),
    "a list": ("- 1\n", "c.yaml", "is a mapping"),
}
SETS = {
    "nonsense": ("expected PATH=VALUE", "for example --set"),
    "stages.phase9.steps=3": ('no stage "phase9"', 'did you mean "phase'),
    "stages.phase1.stpes=3": ("no such option here", 'did you mean "steps"?'),
    "stages.phase1.steps=many": ("must be a whole number", "stages.phase1.steps=many"),
    "stages.phase1.steps=[1": ("not well-formed YAML", "--set stages.phase1.steps=[1\n"),
    "stages.phase2.alignment.guidance=.nan": ("not a finite number", "--set stages.phase2.alignment.guidance=.nan\n"),
    "stages.phase2.sweep.seed=[1]": ("a sweep is set as a whole", "sweep={seed: [1]}"),
    "stages.phase1.alignment.window=[0.7, 0.4]": ("low < high", "--set stages.phase1.alignment.window=[0.7, 0.4]"),
}


def refused(stx, *arguments: str) -> str:
    """The words of a submit that is refused with exit code 2 and leaves nothing at all."""
    result = stx.run("submit", *arguments, expect=2)
    assert "Traceback" not in result.stderr and "unexpected" not in result.stderr, result.stderr
    assert result.stdout == ""
    assert not stx.store.exists()
    return result.stderr.partition("error: ")[2]


@pytest.mark.parametrize("case", EXPERIMENTS)
def test_a_bad_experiment_file_is_refused_with_place_and_remedy(stx, case):
    text, place, remedy = EXPERIMENTS[case]
    path = stx.folder / "e.yaml"
    path.write_text(text)
    words = refused(stx, str(path))
    assert place in words.splitlines()[0]
    assert remedy in words


@pytest.mark.parametrize("case", CLUSTERS)
def test_a_bad_cluster_file_is_refused_with_place_and_remedy(stx, case):
    text, place, remedy = CLUSTERS[case]
    (stx.folder / "e.yaml").write_text(MICRO)
    (stx.folder / "c.yaml").write_text(text)
    words = refused(stx, str(stx.folder / "e.yaml"), "--cluster", str(stx.folder / "c.yaml"))
    assert place in words.splitlines()[0]
    assert remedy in words


@pytest.mark.parametrize("assignment", SETS)
def test_a_bad_set_is_refused_under_its_own_name(stx, assignment):
    (stx.folder / "e.yaml").write_text(MICRO)
    words = refused(stx, str(stx.folder / "e.yaml"), "--set", assignment)
    assert words.startswith(f"--set {assignment.partition('=')[0]}")
    assert all(part in words for part in SETS[assignment])


def test_a_missing_file_a_directory_and_bytes_are_refused(stx):
    (stx.folder / "micro.yaml").write_text(MICRO)
    assert "no such file: " in (words := refused(stx, str(stx.folder / "mcro.yaml"))) and "micro.yaml" in words
    assert "is a directory" in (words := refused(stx, str(stx.folder))) and "there are: " in words
    (stx.folder / "e.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in refused(stx, str(stx.folder / "e.yaml"))


@pytest.mark.parametrize(
    ("pattern", "content"),
    [
        ("store.json", '{"id"'),
        ("stages/*/attempts/001.intent.json", "{}"),
        ("stages/*/attempts/001/outcome-0.json", '{"rank'),
        ("stages/*/attempts/001/outcome-0.json", "{}"),
        ("stages/*/artifact.json", "{}"),
        ("experiments/cmd/graph.json", "{}"),
        ("experiments/cmd/events-1.jsonl", '{"at": 1, "event": {}}\n'),
    ],
)
def test_a_damaged_record_of_the_store_is_named(stx, failed, pattern, content):
    shutil.copytree(failed.folder, stx.folder, dirs_exist_ok=True)
    damaged = sorted(stx.store.glob(pattern))
    for path in damaged:
        path.write_text(content)
    result = stx.run("submit", str(stx.folder / "e.yaml"), expect=2)
    assert any(f"error: {path}" in result.stderr for path in damaged), result.stderr
    assert "the disk damaged it" in result.stderr


@pytest.fixture(scope="module")
def failed(new_stx):
    """A store with a failed stage, whose records are all read when it is submitted again, and a finished one."""
    runner = new_stx("failed")
    failing = COMMAND.replace("echo 1 >", "exit 3; echo 1 >") + "  two: {kind: command, argv: ['true'], version: a}\n"
    (runner.folder / "e.yaml").write_text(failing)
    runner.run("submit", str(runner.folder / "e.yaml"), expect=3)
    return runner


def in_namespace(stx, script: str) -> subprocess.CompletedProcess[str]:
    """A shell script as root of a mount namespace of its own; a visible skip where that is not allowed."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a user mount a file system in a namespace")
    run = f'stx() {{ {sys.executable} -m stx.cli "$@"; }}\n'
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", run + script],
        cwd=stx.folder,
        env=stx.environment({"PYTHONPATH": str(ROOT), "STX_STORE": ""}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_store_without_write_permission_is_refused_and_stays_as_it_was(stx):
    (stx.folder / "e.yaml").write_text(COMMAND)
    (stx.folder / "ro").mkdir()
    stx.run("submit", str(stx.folder / "e.yaml"), "--store", str(stx.folder / "ro" / "old"))
    before = sorted((path, path.stat().st_mtime_ns) for path in (stx.folder / "ro").rglob("*"))
    done = in_namespace(
        stx,
        """
        mount --bind ro ro && mount -o remount,ro,bind ro || exit 9
        stx submit e.yaml --store ro/new; echo "exit $?" >&2
        stx submit e.yaml --store ro/old --set stages.one.seed=1 --update; echo "exit $?" >&2
        stx cancel cmd --store ro/old; echo "exit $?" >&2
        stx retry cmd --store ro/old; echo "exit $?" >&2
        stx report cmd --store ro/old; echo "exit $?" >&2
        stx status cmd --store ro/old; echo "exit $?" >&2
        """,
    )
    assert [line for line in done.stderr.splitlines() if line.startswith("exit ")] == ["exit 2"] * 5 + ["exit 0"]
    assert done.stderr.count("cannot be written: Read-only file system") == 5, done.stderr
    assert done.stderr.count("--store") >= 5
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert sorted((path, path.stat().st_mtime_ns) for path in (stx.folder / "ro").rglob("*")) == before


def test_a_disk_that_is_full_at_submit_is_said_and_nothing_is_queued(stx):
    (stx.folder / "e.yaml").write_text(COMMAND)
    (stx.folder / "full").mkdir()
    done = in_namespace(
        stx,
        """
        mount -t tmpfs -o size=128k none full || exit 9
        stx submit e.yaml --store full/s; echo "exit $?" >&2
        find full/s/stages full/s/experiments full/s/code -type f
        """,
    )
    assert "exit 2" in done.stderr and "the disk is full\n  free some space" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert done.stdout == ""


FULL = """
name: full
stages:
  small: {kind: command, argv: [sh, -c, 'echo 1 > $STX_OUTPUT/a'], version: a}
  published: {kind: command, argv: [sh, -c, 'head -c 2500000 /dev/zero > $STX_OUTPUT/b'], inputs: {s: small}}
  program: {kind: command, argv: [sh, -c, 'head -c 5000000 /dev/zero > $STX_OUTPUT/c'], inputs: {s: small}}
"""


def test_a_disk_that_fills_up_delays_its_stages_and_they_go_on_when_space_is_back(stx):
    (stx.folder / "e.yaml").write_text(FULL)
    (stx.folder / "c.yaml").write_text(
        "poll_s: 0.2\nbackoff_s: [0.5]\nretries: {no_space: 100}\nlimits: {running: 1}\n"
    )
    (stx.folder / "full").mkdir()
    done = in_namespace(
        stx,
        """
        mount -t tmpfs -o size=20m none full || exit 9
        head -c 16500000 /dev/zero > full/filler
        stx submit e.yaml --store full/s --cluster ./c.yaml 2> submit.log & submit=$!
        for _ in $(seq 200); do
            grep -q 'published DELAYED' submit.log && grep -q 'program DELAYED' submit.log && break
            sleep 0.1
        done
        stx status full --store full/s --json > status.json
        rm full/filler
        wait $submit; echo "exit $?"
        find full/s -path '*attempts/*/output' -o -name '*.tmp' -o -name 'output-finished'
        cat full/s/stages/*/artifact.json | grep -c digest
        """,
    )
    log = (stx.folder / "submit.log").read_text()
    assert done.stdout.split("\n")[-3:] == ["exit 0", "3", ""], f"{done.stdout}\n{done.stderr}\n{log}"
    assert "Traceback" not in log and "unexpected" not in log
    assert "NO_SPACE" in log and "No space left on device" in log
    (look,) = json.loads((stx.folder / "status.json").read_text())["experiments"]
    assert {line["name"] for line in look["stages"] if line["state"] == "DONE"} == {"small"}
