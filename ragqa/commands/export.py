"""Export an adapter and its base model as one model, for a server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama.

The exported model is checked: it must answer the adapter's own test prompts with the same tokens. (Of q8_0, which loses
some of what was trained, it is told how many it does.)
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ragqa.commands.options import add_common

EXAMPLE = "example: python -m ragqa.export models/demo --out models/gguf --format gguf"
AFTER_INTERRUPT = "nothing was written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa export`."""
    parser.add_argument("adapter", metavar="ADAPTER", help="a folder that fine-tune wrote, or merge")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the model goes")
    parser.add_argument(
        "--format",
        choices=("safetensors", "gguf"),
        default="safetensors",
        help="safetensors: for vLLM, as merge writes them; gguf: for llama.cpp and Ollama (default: safetensors)",
    )
    parser.add_argument(
        "--dtype",
        help="of the weights; safetensors: float32, bfloat16 or float16 (default: float32); gguf: f16, bf16, f32 or q8_0 "
        "(default: f16)",
    )
    parser.add_argument("--generator", metavar="ID", help="where the base model lies now, if it moved")
    parser.add_argument("--overwrite", action="store_true", help="replace a merged model in --out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa export`."""
    from ragqa.training.export import export

    manifest = export(
        chosen.adapter,
        chosen.out,
        format=chosen.format,
        dtype=chosen.dtype,
        generator=chosen.generator,
        device=chosen.device,
        overwrite=chosen.overwrite,
    )
    checked = manifest.get("gguf") or manifest["merged"]
    print(
        f"{chosen.out}: {checked['same_answers']} of {checked['prompts']} test prompts answered as before "
        f"({checked['dtype']}, log-probabilities differ by {checked['largest_log_prob_difference']:.2g} at most)"
    )
    for line in _how(Path(chosen.out), manifest):
        print(line)
    return 0


def _how(out: Path, manifest: dict[str, Any]) -> list[str]:
    """The commands that serve a model, and the one that asks it then."""
    folder, name = shlex.quote(str(out)), shlex.quote(out.absolute().name)
    url = "http://localhost:8000/v1"
    lines = [f"now serve it: vllm serve {folder} --served-model-name {name}"]
    if "gguf" in manifest:
        lines = [
            f"now serve it: llama-server --model {folder}/model.gguf --alias {name} --port 8000",
            f"          or: ollama create {name} -f {folder}/Modelfile  (then at http://localhost:11434/v1)",
        ]
    asked = f"--adapter {folder} --server {url} --server-model {name}"
    return [*lines, f'and ask it: ragqa ask INDEX {asked} "What is the description of ...?"']
