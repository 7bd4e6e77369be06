"""What the demonstration prints: numbered steps with the time since the start, commands, and what they said."""

import sys
import time


class Screen:
    """Colors only on a terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._count = 0
        self._bold, self._dim, self._plain = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("",) * 3

    def step(self, text: str) -> None:
        self._count += 1
        print(
            f"\n{self._bold}{self._count}. {text}{self._plain}  [{time.monotonic() - self._started:.1f} s]", flush=True
        )

    def command(self, text: str) -> None:
        print(f"   {self._dim}$ {text}{self._plain}", flush=True)

    def output(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            print(f"   {line}", flush=True)

    def say(self, text: str) -> None:
        print(f"   {self._bold}{text}{self._plain}", flush=True)

    def done(self) -> None:
        print(f"\n{self._bold}Done in {time.monotonic() - self._started:.1f} s.{self._plain}", flush=True)
