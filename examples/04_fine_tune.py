"""Fine-tune a generator both ways, plainly and with retrieval, and ask each about products it was not trained on.

python examples/04_fine_tune.py           # 200 questions each, up to half an hour on two cores
RAGQA_TOY=1 python examples/04_fine_tune.py   # one step each: it shows the way, and teaches nothing

An adapter that is there already is kept. Its folder's README.md tells how the training went.
"""

import json
import os
from pathlib import Path

from ragqa import Answerer, build_index, fine_tune

here = Path(__file__).resolve().parent
home = here.parent
index = home / "indexes" / "demo"
if not (index / "CURRENT").exists():
    build_index(here / "catalogue" / "trn.json", index)

sizes = {"examples": 200, "validation": 100, "judged": 40, "watched": 16, "test": 20}
if os.environ.get("RAGQA_TOY"):
    sizes = {"examples": 4, "steps": 1, "validation": 16, "judged": 2, "watched": 2, "test": 20, "evaluations": 1}
    sizes |= {"products": 2, "number_questions": 1, "context_tokens": 256, "max_new_tokens": 24}

for mode in ("plain", "retrieval"):
    adapter = home / "adapters" / f"example-{mode}"
    if not adapter.exists():
        manifest = fine_tune(index, adapter, mode=mode, **sizes)
        trained = manifest["trained"]
        print(f"{mode}: loss {trained['first_loss']:.2f} -> {trained['best_loss']:.2f} in {trained['steps']} steps")

    # The split was written beside the adapter: nothing about these products was trained on.
    lines = (adapter / "split" / "test_unseen.jsonl").read_text("utf-8").splitlines()
    asked = next(line for line in map(json.loads, lines) if line["kind"] == "partial" and not line["ambiguous"])
    answer = Answerer.from_pretrained(index, adapter=str(adapter)).ask(asked["text"], min_confidence=0.0)
    print(f"\n{mode}\nQ: {answer.question}\nA: {answer.text}")
    for source in answer.sources:
        if source.cited:
            print("   source:", source.title)
