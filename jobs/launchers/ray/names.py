"""What is called how in Ray. Standard library only."""

NAMESPACE = "stx"


def actor(tag: str, rank: int) -> str:
    """The actor of a rank."""
    return f"{tag}-{rank}"


def actors(tag: str, ranks: int) -> list[str]:
    """The actors of a job, by rank."""
    return [actor(tag, rank) for rank in range(ranks)]


def rank_of(name: str) -> tuple[str, int] | None:
    """The inverse: the tag and the rank; None for an actor that is none of ours."""
    tag, _, rank = name.rpartition("-")
    return (tag, int(rank)) if tag and rank.isdecimal() else None
