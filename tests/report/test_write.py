"""Files of a report: both texts, every figure they show, nothing of an earlier one."""

from typing import Any

from stx.report.collect import collect
from stx.report.write import write


def test_report_is_written_with_every_figure_it_shows(quickstart: Any) -> None:
    facts = collect(quickstart.store, quickstart.experiment)
    written = write(facts, experiment=quickstart.experiment)
    text = written.markdown.read_text()
    figures = sorted(file.name for file in written.markdown.parent.glob("*.png"))
    assert figures == [
        "grad_norms.png",
        "losses.png",
        "samples.png",
        "score-gpu_hours.png",
        "score-images_seen.png",
        "score-total_compute.png",
        "sweep-phase2-alignment_guidance.png",
    ]
    assert all(f"]({name})" in text for name in figures)
    assert text.startswith("# quickstart\n\nAll 25 stages finished.")
    assert "<h1>quickstart</h1>" in written.html.read_text()


def test_stale_figures_of_an_earlier_report_are_removed(world: Any, add_scored_run: Any) -> None:
    add_scored_run(world, "vanilla", method="vanilla")
    world.save()
    world.experiment.report.mkdir(parents=True)
    (world.experiment.report / "sweep-gone.png").write_bytes(b"old")
    write(collect(world.store, world.experiment), experiment=world.experiment)
    assert not (world.experiment.report / "sweep-gone.png").exists()
