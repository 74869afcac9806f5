"""The one device of a rank: the launcher shows a rank exactly its GPU, so it is cuda:0 or the CPU."""

import torch


def device() -> torch.device:
    """cuda:0 where one is visible, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
