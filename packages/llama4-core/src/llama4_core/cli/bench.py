"""``llama4 bench MODEL``: how fast a model reads and writes on this machine."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llama4_core.cli.loading import add_model_options, load_model
from llama4_core.cli.output import add_json_option, print_json, table
from llama4_core.errors import ContextError

if TYPE_CHECKING:
    from llama4_core.model.transformer import Transformer


class Command:
    """Times prefill and decoding of random tokens."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        add_model_options(parser)
        parser.add_argument("--prompt", type=int, default=512, help="tokens read (default 512)")
        parser.add_argument("--steps", type=int, default=32, help="tokens written (default 32)")
        parser.add_argument("--rows", type=int, default=1, help="sequences at once (default 1)")
        parser.add_argument("--threads", type=int, help="of torch; its own choice by default")
        add_json_option(parser)
        parser.epilog = "example:\n  llama4 bench nano --random 0 --prompt 256 --json"

    def run(self, arguments: argparse.Namespace) -> int:
        """Loads the model and prints tokens per second, by the clock and per second of CPU."""
        for name in ("prompt", "steps", "rows", "threads"):
            value = getattr(arguments, name)
            if value is not None and value < 1:
                raise ContextError(f"--{name} is {value}; expected a whole number of at least 1")
        import torch

        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        model = load_model(arguments)
        longest = arguments.prompt + arguments.steps
        if longest > model.spec.max_positions:
            raise ContextError(
                f"--prompt and --steps are {longest} tokens together; the model's context holds "
                f"{model.spec.max_positions}: ask for fewer"
            )
        with torch.inference_mode():
            found = measure(model, arguments.rows, arguments.prompt, arguments.steps)
        found |= {"threads": torch.get_num_threads(), "dtype": str(model.dtype)[6:]}
        if arguments.json:
            print_json(found)
            return 0
        shown = [("", "tokens/s", "tokens per CPU second")]
        for name in ("prefill", "decode"):
            shown.append((name, f"{found[name]['wall']:.1f}", f"{found[name]['cpu']:.1f}"))
        print(table(shown))
        print(
            f"  {arguments.rows} row(s), {arguments.prompt} tokens read, median of "
            f"{arguments.steps} steps; {found['threads']} thread(s), {found['dtype']}; "
            f"{found['cache_bytes']:,} bytes of cache"
        )
        return 0


def measure(model: Transformer, rows: int, prompt: int, steps: int) -> dict[str, Any]:
    """Tokens per second of a model over random tokens; the first run of each kind is warm-up."""
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.spec.vocabulary, (rows, prompt + steps + 1), generator=generator)
    ids = ids.to(model.device)

    def forward(cached: Any, first: int, count: int) -> None:
        piece = ids[:, first : first + count].reshape(-1)
        hidden, _ = model(piece, cached.extend([count] * rows))
        cached.commit()
        model.project(hidden.unflatten(0, (rows, count))[:, -1])
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    prefills = []
    for _ in range(2):
        cached = model.cached(rows, capacity=prompt + steps + 1)
        prefills.append(_timed(lambda cached=cached: forward(cached, 0, prompt)))  # type: ignore[misc]
    decodes = [
        _timed(lambda step=step: forward(cached, prompt + step, 1))  # type: ignore[misc]
        for step in range(steps + 1)
    ][1:]
    return {
        "rows": rows,
        "prompt": prompt,
        "steps": steps,
        "prefill": {
            kind: rows * prompt / max(prefills[-1][kind], 1e-9) for kind in ("wall", "cpu")
        },
        "decode": {
            kind: rows / max(statistics.median(run[kind] for run in decodes), 1e-9)
            for kind in ("wall", "cpu")
        },
        "cache_bytes": cached.nbytes,
    }


def _timed(call: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
