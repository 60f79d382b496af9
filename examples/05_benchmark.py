"""Find out what pays on a catalogue: fine-tuning, retrieval, both, or neither.

python examples/05_benchmark.py            # toy sizes, four minutes: it shows the way, and proves nothing
python examples/05_benchmark.py quick      # figures, about an hour on two cores
python examples/05_benchmark.py quick PATH/TO/my_products.csv

Interrupted, the same command goes on from what was finished.
"""

import sys
from pathlib import Path

from ragqa.comparison.run import compare

here = Path(__file__).resolve().parent
profile = sys.argv[1] if len(sys.argv) > 1 else "smoke"
catalogue = Path(sys.argv[2]) if len(sys.argv) > 2 else here / "catalogue" / "trn.json"
out = here.parent / "reports" / f"{catalogue.parent.name}-{profile}"

found = compare(catalogue, out, profile=profile, name=catalogue.parent.name)

print(found["answer"])
print(f"\n{'F1 on products that were not trained on':<55} mean  95 % interval")
for cell in found["analysis"]["cells"]:
    if (cell["set"], cell["group"], cell["metric"]) == ("unseen", "all", "f1"):
        label = found["raw"]["arms"][cell["arm"]]["label"]
        print(f"{label:<55} {cell['mean']:.3f}  [{cell['low']:.3f}, {cell['high']:.3f}]")
print("\nreport:", found["files"]["html"])
