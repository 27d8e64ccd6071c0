"""Reproduction scripts, run as a user runs them, but for the seconds that importing their libraries takes.

`Libraries` is a process that has loaded what the scripts may import, and nothing of Luthier. It forks for each script,
which so runs in a process of its own, and says if the script has brought Luthier in.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

ALONE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
OURS = {"luthier", "search", "workers", "service", "tests"}


class Libraries:
    def __init__(self, home: Path) -> None:
        self._log = (home / "libraries.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            env=os.environ | ALONE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def run(self, script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script in a folder, where its output lies afterwards too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": [str(script), *arguments], "folder": str(folder)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline()
        assert code, Path(self._log.name).read_text()
        output, errors = ((folder / name).read_text() for name in ("stdout.txt", "stderr.txt"))
        return subprocess.CompletedProcess(order["arguments"], int(code), output, errors)

    def close(self) -> None:
        self._process.communicate()
        self._log.close()


def _run(arguments: list[str]) -> int:
    """The script's exit code."""
    sys.argv = arguments
    warnings.filterwarnings("error", category=FutureWarning, module="__main__")
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _child(order: dict[str, list[str]], folder: str) -> int:
    os.chdir(folder)
    with open("stdout.txt", "w") as output, open("stderr.txt", "w") as errors:  # noqa: PTH123
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        code = _run(order["arguments"])
        if brought := OURS & set(sys.modules):
            print(f"the script has imported {brought}", file=sys.stderr)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def main() -> None:
    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import trl
        import trl.experimental.cpo
        import trl.experimental.orpo

    for name in ("SFT", "DPO", "KTO", "GRPO", "RLOO", "Reward"):  # they are imported when first asked for
        getattr(trl, f"{name}Trainer"), getattr(trl, f"{name}Config")
    _ = transformers.AutoModelForCausalLM, transformers.Trainer, trl.experimental.cpo.CPOTrainer
    get_checkpoint_conversion_mapping("llama")  # compiles hundreds of patterns
    torch.set_num_threads(1)
    gc.freeze()  # children need not look through all this for garbage
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = _child(order, order["folder"])
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
