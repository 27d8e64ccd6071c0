"""What runs on a training machine."""

import logging

# On a CPU it recommends another package, for speed, on standard error: wherever PEFT is imported, asked or not.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
