# ruff: noqa: E501 - tables of bad input, one case a line
"""Teachers, students, caches, samples and judges of another data set, width or autoencoder are refused by name, before
anything runs.
"""

import pytest

OTHERS = """\
  colour: {kind: images, source: {folder: pets, version: v1, num_images: 5000, num_classes: 10}, resolution: 32, held_out: 500}
  narrow: {kind: images, source: mnist5k, resolution: 30, held_out: 500}
  larger: {kind: images, source: mnist5k, resolution: 40, held_out: 500}
  recut: {kind: images, source: mnist5k, resolution: 32, held_out: 1000, seed: 7}
  other_vae: {kind: autoencoder, images: images, seed: 1}
  latents_larger: {kind: latents, images: larger, autoencoder: vae}
  latents_other: {kind: latents, images: images, autoencoder: other_vae}
  latents_half: {kind: latents, images: images, autoencoder: vae, dtype: fp16}
  judge_larger: {kind: classifier, images: larger}
  judge_recut: {kind: classifier, images: recut}
  wide: {kind: train, latents: latents, model: SiT-Ti/2}
  coarse: {kind: train, latents: latents, model: {depth: 2, width: 32, heads: 2, patch: 4}}
  cosine: {kind: train, latents: latents, interpolant: cosine}
  teacher_later: {kind: freeze, run: phase1, weights: ema}
  teacher_wide: {kind: freeze, run: wide}
  teacher_coarse: {kind: freeze, run: coarse}
  teacher_cosine: {kind: freeze, run: cosine}
  teacher_file: {kind: freeze, checkpoint: a.pt, version: v, model: SiT-Ti/2}
  features_wide: {kind: features, teacher: teacher_wide, latents: latents, teacher_block: 2}
  features_later: {kind: features, teacher: teacher_later, latents: latents, teacher_block: 2}
"""
STUDENT = "  phase2:\n    kind: train\n    latents: latents\n"
TEACHER = "teacher: teacher, features: features,"
CACHE = "teacher: teacher, latents: latents,"
AGAINST = "against: images, extractor"
DATA = "scores compare within one data set; these differ in resolution"


@pytest.fixture
def wide_file(small):
    """The small experiment, and stages that do not belong to it."""
    return small + OTHERS


def test_none_of_the_others_is_wrong_by_itself(expand, wide_file):
    assert expand(wide_file)


def test_another_cut_of_the_same_images_is_no_other_data_set(expand, wide_file):
    expand(wide_file, (AGAINST, "against: recut, extractor"), ("classifier: judge}", "classifier: judge_recut}"))


@pytest.mark.parametrize(
    ("old", "new", "place", "what", "hint"),
    [
        # the teacher's latents against the run's
        (STUDENT, STUDENT.replace("latents\n", "latents_larger\n"), ":16: stages.phase2.alignment.teacher = teacher", "the teacher teacher was trained on latents, this run is on latents_larger", "these differ in images"),
        (STUDENT, STUDENT.replace("latents\n", "latents_other\n"), ":16: stages.phase2.alignment.teacher = teacher", "the teacher teacher was trained on latents, this run is on latents_other", "these differ in autoencoder"),
        (STUDENT, STUDENT.replace("latents\n", "latents_half\n"), ":16: stages.phase2.alignment.teacher = teacher", "the teacher teacher was trained on latents, this run is on latents_half", "these differ in dtype"),
        # the autoencoder's images against the latents'
        ("latents, images: images,", "latents, images: colour,", ":7: stages.latents.autoencoder = vae", "the autoencoder vae is for images of 1 channel(s), those of colour have 3", "give an autoencoder of colour"),
        ("latents, images: images,", "latents, images: narrow,", ":7: stages.latents.autoencoder = vae", "the autoencoder vae divides the resolution by 4, narrow has 30", "a multiple of 4"),
        # the cache's latents against the run's
        (STUDENT, STUDENT.replace("latents\n", "latents_other\n"), ":16: stages.phase2.alignment.features = features", "the cache features was made with latents, this run has latents_other", "both must have the same latents"),
        # the teacher's latents against the cache's
        (CACHE, CACHE.replace("latents,", "latents_larger,"), ":12: stages.features.latents = latents_larger", "the teacher teacher was trained on latents, not on latents_larger", "give latents: latents, or a teacher of latents_larger; they differ in images"),
        (CACHE, CACHE.replace("latents,", "latents_other,"), ":12: stages.features.latents = latents_other", "the teacher teacher was trained on latents, not on latents_other", "they differ in autoencoder"),
        # the cache's teacher against the run's
        (TEACHER, TEACHER.replace("features,", "features_later,"), ":16: stages.phase2.alignment.features = features_later", "the cache features_later was made with teacher_later, this run has teacher", "both must have the same teacher"),
        (TEACHER, TEACHER.replace("features,", "features_wide,"), ":16: stages.phase2.alignment.features = features_wide", "the cache features_wide was made with teacher_wide, this run has teacher", "both must have the same teacher"),
        (TEACHER, TEACHER.replace("teacher,", "teacher_later,"), ":16: stages.phase2.alignment.features = features", "the cache features was made with teacher, this run has teacher_later", "both must have the same teacher"),
        # the teacher's network against the student's
        (TEACHER, "teacher: teacher_wide,", ":16: stages.phase2.alignment.teacher = teacher_wide", "the teacher SiT-Ti/2 has width 128, the student SiT-Mu/2 has 32", "both to be equal"),
        (TEACHER, "teacher: teacher_file,", ":16: stages.phase2.alignment.teacher = teacher_file", "the teacher SiT-Ti/2 has width 128, the student SiT-Mu/2 has 32", "both to be equal"),
        (TEACHER, "teacher: teacher_coarse,", ":16: stages.phase2.alignment.teacher = teacher_coarse", "has patch 4, the student SiT-Mu/2 has 2", "both to be equal"),
        (STUDENT, STUDENT + "    model: SiT-Ti/2\n", ":17: stages.phase2.alignment.teacher = teacher", "the teacher SiT-Mu/2 has width 32, the student SiT-Ti/2 has 128", "both to be equal"),
        (TEACHER, "teacher: teacher_cosine,", ":16: stages.phase2.alignment.teacher = teacher_cosine", "the teacher teacher_cosine learned the cosine interpolant, this run has the linear one", "both must have the same"),
        ("run: phase1}", "run: phase1, qk_norm: true}", ":11: stages.teacher.qk_norm = true", "qk_norm belongs to a checkpoint file; this teacher is frozen from phase1", ""),
        # samples against real images and against the judge
        (AGAINST, "against: larger, extractor", ":19: stages.scores.against = larger", "the samples are of a run on images, these images are larger", DATA),
        (AGAINST, "against: colour, extractor", ":19: stages.scores.against = colour", "the samples are of a run on images, these images are colour", "these differ in source"),
        ("classifier: judge}", "classifier: judge_larger}", ":19: stages.scores.extractor.classifier = judge_larger", "the samples are of a run on images, the classifier judge_larger learned larger", DATA),
        ("runs: [vanilla,", "runs: [strange,", ":19: stages.scores.against = images", "the samples are of a run on larger, these images are images", DATA),
        ("num_samples: 20", "num_samples: 20, autoencoder: other_vae", ":18: stages.samples.autoencoder = other_vae", "no such option", "known: at, batch"),
        # what is no such thing at all
        (TEACHER, TEACHER.replace("teacher: teacher,", "teacher: features,"), ":16: stages.phase2.alignment.teacher = features", 'expects a stage of kind freeze, "features" is of kind features', "known: teacher"),
        (AGAINST, "against: latents, extractor", ":19: stages.scores.against = latents", 'expects a stage of kind images, "latents" is of kind latents', "known: images"),
    ],
)  # fmt: skip
def test_what_belongs_to_something_else_is_refused_by_name(refused, wide_file, old, new, place, what, hint):
    strange = "  strange: {kind: train, latents: latents_larger}\n"
    lines = refused(wide_file + strange, (old, new)).splitlines()
    told = [lines[number + 1 : number + 3] for number, line in enumerate(lines) if line == place]
    assert any(what in answer[0] and hint in answer[-1] for answer in told), lines
