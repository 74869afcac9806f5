"""What two stages differ in, down to the first cause."""

from typing import Any

from stx.spec import Graph, Input, Node, StageSpec
from stx.verbs.compare import Changed, compare, words

TRAIN = {"seed": 0, "lr": 1e-3, "global_batch": 64}


def node(name: str, kind: str, science: dict[str, Any], *inputs: tuple[str, Node, int | None], **more: Any) -> Node:
    found = {path: Input(source.spec.kind, source.key, images) for path, source, images in inputs}
    return Node(name, name.split(":")[0], StageSpec(kind, 1, science, found), **more)


IMAGES = node("images", "images", {"seed": 0})
VAES = [node(f"vae:steps={n}", "autoencoder", {"steps": n}, ("images", IMAGES, None)) for n in (100, 200)]
LATENTS = [
    node(f"latents:steps={n}", "latents", {"dtype": "fp32"}, ("images", IMAGES, None), ("autoencoder", vae, None))
    for n, vae in zip((100, 200), VAES, strict=True)
]
RUNS = [node(f"run:steps={n}", "train", TRAIN, ("latents", LATENTS[n], None)) for n in (0, 1)]
OTHER = node("other", "train", TRAIN | {"lr": 2e-3, "interval": 3}, ("latents", LATENTS[0], None), wants=(64,))
TEACHERS = [node(f"teacher:at={at}", "freeze", {"weights": "raw"}, ("run", RUNS[0], at)) for at in (64, 128)]
GRAPH = Graph("e", (IMAGES, *VAES, *LATENTS, *RUNS, OTHER, *TEACHERS))
GRAPHS = (GRAPH, GRAPH)


def test_options_that_differ_are_told_with_both_values_and_what_is_shared_by_name() -> None:
    found = compare(RUNS[0], OTHER, graphs=GRAPHS)
    assert found.options == (Changed("lr", 1e-3, 2e-3), Changed("interval", None, 3))
    assert not found.inputs
    assert found.shared == ("latents",)
    assert found.others == (Changed("wanted images seen", [], [64]),)


def test_inputs_are_followed_to_the_option_that_made_them_differ() -> None:
    (latents,) = compare(*RUNS, graphs=GRAPHS).inputs
    (vae,) = latents.inputs
    assert (latents.name, latents.options, latents.shared) == ("latents", (), ("images",))
    assert (vae.name, vae.options) == ("autoencoder", (Changed("steps", 100, 200),))
    assert words(compare(*RUNS, graphs=GRAPHS))[-3:] == [
        "        steps  100 -> 200",
        "      the same: images",
        "    the same: images",
    ]


def test_a_pair_of_inputs_is_explained_once() -> None:
    both = [
        node(f"judge:{n}", "command", {"argv": ["x"]}, ("a", LATENTS[n], None), ("b", LATENTS[n], None)) for n in (0, 1)
    ]
    first, second = compare(*both, graphs=(Graph("e", (*GRAPH.nodes, *both)),) * 2).inputs
    assert (first.again, second.again) == (False, True)
    assert first.inputs and not second.inputs


def test_the_same_run_at_another_milestone_is_a_difference() -> None:
    (run,) = compare(*TEACHERS, graphs=GRAPHS).inputs
    assert run.same
    assert (run.here.images, run.there.images) == (64, 128)  # type: ignore[union-attr]
    assert "    the same run at another milestone" in words(compare(*TEACHERS, graphs=GRAPHS))


def test_an_input_that_only_one_of_them_has_is_told() -> None:
    more = node("more", "train", TRAIN, ("latents", LATENTS[0], None), ("alignment.teacher", TEACHERS[0], None))
    (teacher,) = compare(RUNS[0], more, graphs=(GRAPH, Graph("f", (*GRAPH.nodes, more)))).inputs
    assert teacher.here is None
    assert teacher.there is not None and teacher.there.name == "teacher:at=64"


def test_equal_keys_are_one_stage_and_other_kinds_are_not_compared() -> None:
    assert "are one stage" in words(compare(OTHER, OTHER, graphs=GRAPHS))[0]
    assert words(compare(OTHER, IMAGES, graphs=GRAPHS))[1] == "  they are of different kinds"
