"""Ask a catalogue: build an index over the project's own small catalogue (once), then ask it.

python examples/01_ask.py
"""

from pathlib import Path

from ragqa import Answerer, build_index

here = Path(__file__).resolve().parent
index = here.parent / "indexes" / "demo"
if not (index / "CURRENT").exists():
    build_index(here / "catalogue" / "trn.json", index)

answerer = Answerer.from_pretrained(index)
questions = [
    "What is the description of Marisol flamenco skirt in red?",  # the title in part
    "Qual é a descrição deste produto: Rede de Dormir Casal Maracatu, Azul?",  # the exact title
    "lighthuose keepers kitens",  # mistyped
    "Do you have surfboards?",  # not in the catalogue
]
for answer in answerer.ask_many(questions):
    print("Q:", answer.question)
    print("A:", answer.text)
    if answer.abstained:
        print("   nearest:", answer.sources[0].title)
    else:
        source = next(source for source in answer.sources if source.cited)
        print(f"   source: {source.title} ({source.id}), confidence {answer.confidence:.2f}")
    print()
