"""Clean LF-Amazon-1.3M (`trn.json`) and save it as question-and-answer pairs for training elsewhere.

python examples/03_prepare_lf_amazon.py                         # on a small sample of the same form, written for the project
python examples/03_prepare_lf_amazon.py PATH/TO/trn.json.gz     # on the real one: 2.2 million rows, some minutes

Its rows are `{"uid": ..., "title": ..., "content": ..., "target_ind": [...], "target_rel": [...]}`, a line each.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from ragqa import CleaningSettings, prepare

here = Path(__file__).resolve().parent
source = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "catalogue" / "trn.json"
out = here.parent / "prepared.parquet"

report = prepare(
    source,
    out,
    pairs=True,  # also the columns prompt and response
    template="What is the description of {title}?",
    cleaning=CleaningSettings(max_description_chars=2000),  # lowercase=True for what the original study did
)
print(report.table())  # what was dropped and why; the same with examples in prepared.parquet.report.json

table = pq.read_table(out)
print(f"\n{table.num_rows:,} rows of {', '.join(table.column_names)}; the first:")
for name, value in table.slice(0, 1).to_pylist()[0].items():
    print(f"{name:>12}: {value[:90]}")
