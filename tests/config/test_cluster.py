import re
import typing
from pathlib import Path

import pytest

from stx.config import yaml
from stx.config.cluster import Cluster, StageResources, load_cluster
from stx.config.ray import Ray
from stx.config.schema import Section
from stx.errors import ConfigError

H100 = Path(__file__).parents[2] / "configs" / "clusters" / "h100.yaml"
KEY = re.compile(r"^ *(?:# |- )?([a-z_]+):|[{,] *([a-z_]+):", re.MULTILINE)
ONE_LINE = re.compile(r"^( *)# ((?:[a-z_]+): .*)$", re.MULTILINE)


@pytest.fixture
def parse(tmp_path):
    def parse(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load_cluster(path)

    return parse


def test_everything_has_a_default(parse):
    cluster = parse("")
    assert cluster.name == "mine"
    assert (cluster.launcher, cluster.coordinator.where, cluster.poll_s, cluster.lease_s) == (
        "local",
        "foreground",
        0.2,
        20,
    )
    assert cluster.stop_lead_s == 90
    assert cluster.hang_after_s.model_dump() == {
        "start": 900,
        "step": 600,
        "save": 900,
        "sample": 1800,
        "evaluate": 1800,
        "other": 1800,
    }
    assert cluster.retries.model_dump() == {
        "lost": 5,
        "node": 5,
        "oom": 1,
        "hang": 2,
        "nan": 0,
        "setup": 2,
        "no_space": 10,
        "timeout": 5,
    }
    assert cluster.backoff_s == (0, 5, 30, 300)
    assert (cluster.checkpoint.every_s, cluster.checkpoint.keep) == (30, 2)
    assert (cluster.limits.queued, cluster.limits.running) == (2, 1000)
    assert cluster.resources("train").time == 3600


@pytest.mark.parametrize("value", ["0", "-1", "4.9", "4s", "soon", ".inf"])
def test_a_limit_for_hangs_is_a_time_that_a_healthy_worker_keeps(parse, value):
    with pytest.raises(ConfigError, match=r"mine\.yaml:1: hang_after_s\.save"):
        parse(f"hang_after_s: {{step: 5, save: {value}}}")


def test_a_file_of_ones_own_is_as_quick_as_the_built_in_one(parse):
    own, built_in = parse("launcher: local\n").dump(), load_cluster("local").dump()
    assert {name for name in own if own[name] != built_in[name]} == {"name", "stages"}


def test_the_page_about_cluster_files_shows_the_defaults_and_all_of_them(parse):
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    shown, example, listed = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert parse(shown) == parse("")
    named = set(yaml.parse(shown, file="").value)
    assert named == set(Cluster.model_fields) - {"name", "store", "on_event", "slurm", "bad_nodes", "ray"}
    (stages,) = yaml.parse(shown, file="").value["stages"].values()
    assert set(stages) == set(StageResources.model_fields) - {"layouts", "flops_per_s", "slurm"}
    assert parse(example).store == "/data/stx"
    assert [one.ranks for one in parse(listed).resources("train").layouts or ()] == [16, 2, 1]


def test_all_that_is_wrong_with_a_kind_is_told_at_once(parse):
    with pytest.raises(ConfigError) as caught:
        parse("stages: {train: {ranks: two, zero: 3, tme: 1}}")
    said = str(caught.value)
    for place in ("ranks = two\n  must be a whole number", "zero = 3\n  no such option", "tme = 1\n  no such option"):
        assert f"stages.train.{place}" in said


def test_the_built_in_local_cluster_is_the_default(monkeypatch, tmp_path):
    monkeypatch.delenv("STX_CLUSTER", raising=False)
    monkeypatch.setenv("STX_GPUS", "0")
    assert load_cluster() == load_cluster("local")
    assert (load_cluster().poll_s, load_cluster().limits.queued) == (0.2, 2)
    other = tmp_path / "other.yaml"
    other.write_text("poll_s: 7\n")
    monkeypatch.setenv("STX_CLUSTER", str(other))
    assert load_cluster().poll_s == 7


def test_gpus_auto_is_one_where_there_is_one(monkeypatch):
    monkeypatch.setenv("STX_GPUS", "0")
    assert load_cluster("local").resources("train").gpus_per_rank == 0
    monkeypatch.setenv("STX_GPUS", "4")
    assert load_cluster("local").resources("train").gpus_per_rank == 1


def test_a_kind_is_merged_over_the_defaults(parse):
    cluster = parse("stages:\n  default: {mem_gb: 8, time: 30m}\n  train: {time: 24h, ranks: 2}\n")
    assert (cluster.resources("train").mem_gb, cluster.resources("train").time) == (8, 86400)
    assert cluster.resources("images").time == 1800


def test_layouts_replace_the_default_ranks(parse):
    cluster = parse(
        "stages:\n  default: {ranks: 1}\n  train: {layouts: [{nodes: 2, ranks_per_node: 8, micro_batch: 4}]}\n"
    )
    assert [layout.ranks for layout in cluster.resources("train").layouts or ()] == [16]


def test_what_a_kind_asks_for_is_found_in_the_file(parse):
    cluster = parse("stages:\n  default: {ranks: 2}\n  train:\n    layouts:\n      - {nodes: 2}\n      - {nodes: 1}\n")
    assert cluster.place("train", ("layouts", 1, "nodes")).endswith("mine.yaml:6: stages.train.layouts[1].nodes = 1")
    assert cluster.place("train", ("zero_stage",)).endswith("mine.yaml:3: stages.train.zero_stage")
    assert cluster.place("images", ("ranks",)).endswith("mine.yaml:2: stages.default.ranks = 2")
    assert Cluster(name="made").place("images", ("ranks",)) == "cluster made: stages.images.ranks"


def test_dump_is_json_that_reads_back(parse):
    cluster = parse("stages:\n  default: {ranks: 2}\n  train: {layouts: [{nodes: 2}], gpus_per_rank: auto}\n")
    assert Cluster.model_validate(cluster.dump()) == cluster


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("launchr: local", ":1: launchr = local", 'did you mean "launcher"'),
        ("launcher: ray\nray: {address: auto}", ":2: ray.address = auto", "HOST:PORT of the cluster's head"),
        ("launcher: ray\nray: {address: 'a:1', token: t}", ":2: ray.token = t", "an absolute path"),
        ("launcher: ray\nray: {address: 'a:1', nodes: 2}", ":2: ray.nodes = 2", "has no effect beside address"),
        ("launcher: ray\nray: {address: 'a:1'}\nslurm: {}", ":3: slurm", "has no effect with launcher: ray"),
        ("launcher: slurm\nray: {address: 'a:1'}", ":2: ray", "remove it, or say launcher: ray"),
        ("launcher: pbs", ":1: launcher = pbs", "known: local"),
        ("coordinator: {where: home}", ":1: coordinator.where = home", "known: foreground, detached, job, cron, chain"),
        ("coordinator: {where: job}", ":1: coordinator.where = job", "has no effect with launcher: local"),
        ("coordinator: {where: chain}", ":1: coordinator.where = chain", "has no effect with launcher: local"),
        ("coordinator: {where: cron, time: 1h}", ':1: coordinator.time = "1h"', "has no effect with where: cron"),
        ("launcher: slurm\ncoordinator: {partition: a}", ":2: coordinator.partition = a", "say where: job or chain"),
        ("launcher: slurm\ncoordinator: {mem_gb: 2}", ":2: coordinator.mem_gb = 2", "no effect with where: detached"),
        ("coordinator: {allow_whole_nodes: true}", ":1: coordinator.allow_whole_nodes = true", "has no effect"),
        ("launcher: slurm\ncoordinator: {where: job, time: 30s}", ':2: coordinator.time = "30s"', "at least 60 s"),
        ("launcher: slurm\ncoordinator: {where: job, partition: a b}", ":2: coordinator.partition", "one word"),
        ("stages:\n  train:\n    time: 5x", ":3: stages.train.time = ", "30m"),
        ("stages:\n  default:\n    time: 5x\n  train: {}", ":3: stages.default.time = ", "30m"),
        ("stages: {train: {rnks: 2}}", ":1: stages.train.rnks = 2", 'did you mean "ranks"'),
        ("stages: {train: {ranks: 2, layouts: [{}]}}", ":1: stages.train.ranks = 2", "no effect"),
        ("stages: {train: {layouts: []}}", ":1: stages.train.layouts = []", "at least 1"),
        ("stages: {train: {layouts: [{nodes: 0}]}}", ":1: stages.train.layouts[0].nodes = 0", "above 0"),
        ("stages: {train: {zero_stage: 4}}", ":1: stages.train.zero_stage = 4", "at most 3"),
        ("stages: {train: {compile: true}}", ":1: stages.train.compile = true", "not built yet"),
        ("stages: {train: {noise_on: gpu}}", ":1: stages.train.noise_on = gpu", "known: loader, device"),
        ("stages: {train: 3}", ":1: stages.train = 3", "must be a mapping"),
        ("slurm: {partition: low}", ":1: slurm", "has no effect with launcher: local"),
        ("bad_nodes: {after: 2}", ":1: bad_nodes", "has no effect with launcher: local"),
        ("poll_s: -1", ":1: poll_s = -1", "above 0"),
        ("poll_s: fast", ":1: poll_s = fast", "is not a time"),
        ("retries: {lost: -1}", ":1: retries.lost = -1", "at least 0"),
        ("limits: 3", ":1: limits = 3", "must be a mapping"),
        ("backoff_s: [a]", ":1: backoff_s[0] = a", "must be a number"),
        ("[1]", "mine.yaml", "is a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_value(parse, text, place, words):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_an_unknown_built_in_lists_those_there_are():
    with pytest.raises(ConfigError, match="known: local"):
        load_cluster("locl")


def test_an_unknown_kind_is_refused_with_its_line(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_text("stages:\n  default: {ranks: 1}\n  trian: {ranks: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_cluster(path)
    assert str(caught.value).startswith(f'{path}:3: stages.trian\n  "trian" is no stage kind\n  did you mean "train"?')


def test_a_slurm_cluster_has_the_defaults_of_jobs_that_wait_in_a_queue(parse):
    cluster = parse("launcher: slurm\ncheckpoint: {keep: 3}\n")
    assert (cluster.coordinator.where, cluster.poll_s, cluster.lease_s) == ("detached", 30, 60)
    assert (cluster.checkpoint.every_s, cluster.checkpoint.keep) == (600, 3)
    assert Cluster.model_validate(cluster.dump()) == cluster


def test_bad_nodes_are_avoided_after_one_failure_for_a_day_where_nothing_else_is_said(parse):
    assert parse("launcher: slurm\n").bad_nodes.model_dump() == {"after": 1, "expire": 86400.0}
    assert parse("launcher: slurm\nbad_nodes: {after: 3, expire: 2h}\n").bad_nodes.expire == 7200.0


def test_what_a_kind_asks_of_slurm_goes_before_what_all_ask(parse):
    cluster = parse(
        "launcher: slurm\nslurm: {partition: gpu, account: lab, setup: [module load cuda]}\n"
        "stages: {images: {slurm: {partition: cpu}}}\n"
    )
    assert cluster.scheduler("train").partition == "gpu"
    images = cluster.scheduler("images")
    assert (images.partition, images.account, images.setup) == ("cpu", "lab", ("module load cuda",))


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("slurm: {partition: 'two words'}", ":2: slurm.partition", "must be one word"),
        ('slurm: {setup: ["a\\nb"]}', ":2: slurm.setup[0]", "must be one line"),
        ("slurm: {partitoin: low}", ":2: slurm.partitoin", "no such option"),
    ],
)
def test_what_sbatch_could_not_read_is_refused(parse, text, where, words):
    with pytest.raises(ConfigError) as caught:
        parse(f"launcher: slurm\n{text}\n")
    assert where in str(caught.value) and words in str(caught.value)


def test_a_ray_cluster_has_defaults_of_its_own(parse):
    cluster = parse("launcher: ray\nray: {address: 'head:6379', via: [ssh, head]}\n")
    assert (cluster.coordinator.where, cluster.poll_s, cluster.limits.queued) == ("detached", 0.5, 4)
    assert (cluster.ray.address, cluster.ray.token, cluster.ray.via) == ("head:6379", None, ("ssh", "head"))
    assert "ray" in cluster.dump() and "slurm" not in cluster.dump()
    assert "ray" not in parse("").dump()


def sections(model: type[Section]) -> set[type[Section]]:
    """A section of the cluster file with all that are in it."""
    found, inside = {model}, [info.annotation for info in model.model_fields.values()]
    while inside:
        one = inside.pop()
        inside += typing.get_args(one)
        if isinstance(one, type) and issubclass(one, Section):
            found |= sections(one)
    return found


def test_the_example_of_an_h100_cluster_has_every_key_there_is():
    text = H100.read_text()
    told = {name for match in KEY.finditer(text) for name in match.groups() if name}
    known = {name for model in sections(Cluster) - {Ray} for name in model.model_fields} - {"ray"}
    assert {"gpu_type", "micro_batch", "max_stall", "no_space", "queued", "where"} < known
    assert known - told == set()


def test_the_example_of_an_h100_cluster_is_one():
    cluster = load_cluster(H100)
    assert (cluster.name, cluster.launcher, cluster.slurm.gpu_type) == ("h100", "slurm", "h100")
    assert [one.ranks for one in cluster.resources("train").layouts] == [16, 8]
    assert cluster.resources("latents").ranks == 8


def test_every_key_that_the_example_comments_out_may_stand_there(tmp_path):
    text = H100.read_text()
    top, _, rest = text.partition("coordinator:")
    home, _, rest = rest.partition("poll_s:")
    lines = [line for _, line in ONE_LINE.findall(top + rest)]
    assert len(lines) > 10
    job = re.sub(r"where: detached.*", "", re.sub("# ([a-z_]+:)", r"\1", home))
    for changed in [text.replace(home, job), *(text.replace(f"# {line}", line, 1) for line in lines)]:
        (tmp_path / "c.yaml").write_text(changed)
        load_cluster(tmp_path / "c.yaml")


def test_a_coordinators_job_asks_for_what_is_said_of_it_and_else_for_what_any_job_does(parse):
    cluster = parse(
        "launcher: slurm\n"
        "coordinator: {where: job, partition: cpu, qos: long}\n"
        "slurm: {partition: gpu, account: lab, qos: fast, constraint: h100, setup: [module x], srun: [--mpi=none]}\n"
    )
    asked = cluster.coordinator.asked(cluster.slurm)
    assert (asked["partition"], asked["account"], asked["qos"]) == ("cpu", "lab", "long")
    assert asked["constraint"] is None and asked["setup"] == ["module x"] and "srun" not in asked
    shared = parse("launcher: slurm\ncoordinator: {where: chain}\nslurm: {partition: gpu, constraint: h100}\n")
    asked = shared.coordinator.asked(shared.slurm)
    assert (asked["partition"], asked["constraint"]) == ("gpu", "h100")
    assert Cluster.model_validate(cluster.dump()) == cluster
