"""Numbers and messages as people read them."""

from stx.report.words import one_line

ADVICE = "repair or remove them, and give the source a new `version:` (it is another set of images then)"


def test_several_lines_are_joined_and_a_list_follows_its_colon() -> None:
    assert one_line("3 images cannot be used:\n  a.jpg: torn\n\n  b.jpg: empty\n") == (
        "3 images cannot be used: a.jpg: torn; b.jpg: empty"
    )
    assert one_line("") == ""


def test_what_is_too_long_keeps_the_advice_at_its_end() -> None:
    told = one_line("/x/pets\n1 of 120 images cannot be used:\n  Square Box/004.jpg: truncated at byte 12\n" + ADVICE)
    assert len(told) == 160
    assert told.startswith("/x/pets; 1 of 120 images cannot be used: ")
    assert told.endswith(f"...; {ADVICE}")


def test_one_long_line_is_cut_at_its_end() -> None:
    assert one_line("x" * 200) == "x" * 157 + "..."
    assert one_line("short\n" + "x" * 200).startswith("short; xxx")
