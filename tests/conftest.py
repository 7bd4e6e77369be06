"""How thoroughly properties are tried: with `HYPOTHESIS_PROFILE=thorough` a hundred times more than by default."""

import os
import signal

from hypothesis import settings

settings.register_profile("quick", max_examples=30, deadline=None, print_blob=True)
settings.register_profile("thorough", max_examples=3000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# A shell's background job ignores SIGINT, and so would everything that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
