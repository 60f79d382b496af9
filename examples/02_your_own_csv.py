"""Build an index from a CSV file of your own, ask it, and bring it to a new state.

python examples/02_your_own_csv.py

It stands on a small shop written for the project. For your own file put its path and its columns' names in the place of
these; columns with usual names (id, sku, title, name, nome, description, descrição, ...) are found by themselves.
"""

from pathlib import Path

from ragqa import Answerer, ReadOptions, build_index, update_index

here = Path(__file__).resolve().parent
catalogue = here / "shop" / "produtos.csv"
index = here.parent / "indexes" / "shop"

options = ReadOptions(id_column="artigo", title_column="produto", text_column="observações")
if not (index / "CURRENT").exists():
    built = build_index(catalogue, index, options=options)
    print(f"{len(built)} products; the one without a description was left out")

question = "Qual é a descrição da garrafa térmica?"
print("Q:", question)
print("A:", Answerer.from_pretrained(index).ask(question).text)

# The next day's catalogue: the whole one, here with a changed product. Only what differs is embedded.
tomorrow = index.parent / "produtos-amanhã.csv"
tomorrow.write_text(
    catalogue.read_text("utf-8").replace("Garrafa Térmica Minuano, 1 L", "Garrafa Minuano, 2 L"), "utf-8"
)
done = update_index(index, tomorrow, options=options)
print(f"{done.added} added, {done.changed} changed, {done.deleted} deleted, {done.unchanged} as before")

# An answerer keeps the state it opened; open it again for the new one.
print("A:", Answerer.from_pretrained(index).ask("Garrafa Minuano, 2 L").sources[0].title)
