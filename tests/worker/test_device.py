"""Whose memory a GPU's is. A GPU itself is not needed for that."""

import pytest

from stx.worker import device

GB = 1 << 30


@pytest.mark.parametrize(
    ("used", "total", "ours", "words"),
    [
        (0.6, 80, 0, None),
        (4.9, 80, 0, None),
        (5.1, 80, 0, "others use 4.1 GiB or more of its 80.0 GiB of memory"),
        (40.5, 80, 40, None),
        (1.3, 8, 0, None),
        (1.5, 8, 0, "others use 0.5 GiB or more of its 8.0 GiB of memory"),
    ],
)
def test_what_neither_we_nor_our_context_use_is_a_guests(used, total, ours, words):
    free, total = int((total - used) * GB), total * GB
    assert device.foreign(free, total, ours=ours * GB) == words


def test_without_a_gpu_there_are_no_guests(monkeypatch):
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    device.check_guests()
