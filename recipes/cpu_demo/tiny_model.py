"""Makes the demo's model: `python -m recipes.cpu_demo.tiny_model --data sft.parquet --out folder`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codedance_verl.errors import UserError
from recipes.cpu_demo.demo_models import DEFAULT_MODEL, DEMO_MODELS


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Builds a tiny vision-language model with random weights.")
    parser.add_argument("--data", type=Path, required=True, help="demonstrations, whose text makes the tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, in Hugging Face format")
    parser.add_argument(
        "--model", choices=DEMO_MODELS, default=DEFAULT_MODEL, help="Qwen2.5-VL or Qwen3-VL (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    options = parser.parse_args(arguments)
    from recipes.cpu_demo.tiny_vlm import build_tiny_model  # imports torch: --help should not wait for it

    try:
        build_tiny_model(options.data, options.out, seed=options.seed, model=options.model)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
