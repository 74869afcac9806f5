"""The wall clock of one process, which may jump: time.time, time.time_ns and time.clock_gettime(CLOCK_REALTIME).

Out of reach: datetime.now and time.localtime without an argument (C asks the kernel), and the times of files.
"""

import time


class Clock:
    """`jump` moves it; `now` is the kernel's, whatever was moved."""

    def __init__(self) -> None:
        self._offset_ns = 0
        self.now = time.time
        self._real_ns = time.time_ns
        self._real_gettime = time.clock_gettime

    def jump(self, seconds: float) -> None:
        self._offset_ns += round(seconds * 1e9)

    def time(self) -> float:
        return self.time_ns() / 1e9

    def time_ns(self) -> int:
        return self._real_ns() + self._offset_ns

    def clock_gettime(self, number: int) -> float:
        return self.time() if number == time.CLOCK_REALTIME else self._real_gettime(number)


def install() -> Clock:
    clock = Clock()
    time.time, time.time_ns, time.clock_gettime = clock.time, clock.time_ns, clock.clock_gettime
    return clock
