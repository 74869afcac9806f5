"""Numbers out of what a job writes, and the dashboard that asks for them."""

import json
import re
from pathlib import Path

import yaml

from jobs.files import AttemptDir
from jobs.launchers.ray import metrics

GRAFANA = Path(__file__).resolve().parents[3] / "tools" / "grafana"
HEART = {"phase": "step", "numbers": {"images": 640, "total": 1280, "loss": 2.0, "images_per_s": 8.0}}


def line(**numbers: float) -> bytes:
    return json.dumps({"loss": 1.5, "images_per_s": 16.0, "loader_wait_s": 2.0} | numbers).encode() + b"\n"


def test_the_last_line_beats_the_heartbeat_and_shares_are_of_the_time_between_two():
    found = metrics.numbers(HEART, line(images=320) + line(images=480, teacher_s=5.0, gpu_memory_bytes=7))
    assert found == {
        "stx_loss": 1.5,
        "stx_images": 640.0,
        "stx_images_wanted": 1280.0,
        "stx_images_per_s": 16.0,
        "stx_gpu_memory_bytes": 7.0,
        "stx_loader_wait_share": 0.2,
        "stx_teacher_share": 0.5,
    }


def test_what_a_job_does_not_write_has_no_number():
    assert metrics.numbers({}, b"") == {}
    assert metrics.numbers({"numbers": {"images": 3}}, b'{"loss": null}\n{"cut') == {"stx_images": 3.0}
    assert set(metrics.numbers(HEART, line(images=1) + line(images=1))) <= set(metrics.GAUGES)


def test_the_age_of_a_checkpoint_counts_from_the_end_of_a_save():
    saves = metrics.Saves(since=100.0)
    ages = [saves.look(phase, now=now) for phase, now in [("step", 130.0), ("save", 140.0), ("step", 141.0)]]
    assert [*ages, saves.look("step", now=150.0)] == [30.0, 0.0, 0.0, 9.0]


def test_labels_say_whose_numbers_they_are(tmp_path):
    attempt = AttemptDir(tmp_path / "003")
    claim = {"experiment": "e", "name": "phase2:guidance=5,seed=0", "attempt": {"kind": "train"}}
    attempt.intent.write_text(json.dumps(claim))
    found = metrics.labels_of(attempt)
    assert found == {
        "experiment": "e",
        "stage": "phase2",
        "point": "guidance=5,seed=0",
        "kind": "train",
        "attempt": "003",
    }


def test_grafana_asks_for_series_that_are_exported_and_all_of_them():
    board = json.loads((GRAFANA / "dashboards" / "stx.json").read_text())
    queries = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    assert set(re.findall(r"ray_(stx_\w+)", queries)) == set(metrics.GAUGES)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    asked = [one["query"]["query"] for one in board["templating"]["list"]]
    assert {re.split(r"[ ,)]+", query)[-2] for query in asked} <= {*metrics.LABELS, "cluster"}


def test_the_provisioning_files_name_one_data_source():
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/stx.yaml").read_text())["datasources"]
    board = json.loads((GRAFANA / "dashboards" / "stx.json").read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    (scrape,) = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["file_sd_configs"][0]["files"] == ["/stx-ray/targets/*.json"]
