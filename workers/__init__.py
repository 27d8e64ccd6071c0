"""Workers: the processes that train, judge, export and answer on a training machine."""

import logging

# Without a GPU bitsandbytes prints advice to standard error whenever PEFT is imported.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
