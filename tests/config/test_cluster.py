import pytest

from stx.config.cluster import Cluster, load_cluster
from stx.errors import ConfigError


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
        30,
        60,
    )
    assert cluster.stop_lead_s == 90
    assert cluster.hang_after_s.model_dump() == {"start": 900, "step": 600, "save": 900, "other": 1800}
    assert cluster.retries.model_dump() == {
        "lost": 5,
        "node": 5,
        "oom": 1,
        "hang": 2,
        "nan": 0,
        "setup": 2,
        "no_space": 10,
    }
    assert cluster.backoff_s == (0, 60, 300, 1800)
    assert (cluster.checkpoint.every_s, cluster.checkpoint.keep) == (600, 2)
    assert (cluster.limits.queued, cluster.limits.running) == (100, 50)
    assert cluster.resources("train").time == 3600


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


def test_dump_is_json_that_reads_back(parse):
    cluster = parse("stages:\n  default: {ranks: 2}\n  train: {layouts: [{nodes: 2}], gpus_per_rank: auto}\n")
    assert Cluster.model_validate(cluster.dump()) == cluster


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("launchr: local", ":1: launchr = local", 'did you mean "launcher"'),
        ("poll_s: 1\nlauncher: slurm", ":2: launcher = slurm", "not built yet in this version"),
        ("launcher: ray", ":1: launcher = ray", "valid: local"),
        ("launcher: pbs", ":1: launcher = pbs", "known: local"),
        ("coordinator: {where: cron}", ":1: coordinator.where = cron", "valid: foreground, detached"),
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
        ("slurm: {partition: low}", ":1: slurm", "no such option"),
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
