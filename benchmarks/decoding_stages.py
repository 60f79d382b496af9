"""The stages of `benchmarks.decoding`, each in a process of its own: ``python -m benchmarks.decoding_stages STAGE ...``."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ragqa.answerer import Answerer
from ragqa.generation.generator import Generator
from ragqa.generation.prompt import Prompt
from ragqa.generation.sources import Writing, Written
from ragqa.generation.writer import Writer
from ragqa.records import Retrieval
from ragqa.settings import AnswerSettings

SEED: Final = 0
# Limits of a prompt, in tokens, with those of the answers: what `ragqa fine-tune` and `ragqa ask` do of themselves.
BUDGETS: Final = {448: (64, 128), 1024: (64, 128, 256)}
BATCHES: Final = (8, 32)
LONGEST: Final = max(BUDGETS)
# transformers' own suggestion for prompt look-up.
LOOKED_UP: Final = 10
_BATCH_BUDGET: Final = 128
_OPEN_BUDGET: Final = 96
_EQUAL_BUDGET: Final = 48
_EQUAL_CONTEXT: Final = 256
_EQUAL_BATCH: Final = 16

Answers = list[tuple[Prompt, Retrieval]]
_LEAST: Final = max(map(max, BUDGETS.values())) + 16  # tokens of a description that fills every answer


def main() -> None:
    """Run one stage; prints its result as a JSON line."""
    stage, index, adapter, dtype, count = sys.argv[1:6]
    found = STAGES[stage](Path(index), adapter, dtype, int(count))
    print(json.dumps(found | {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}))


def asked(
    index: Path, adapter: str | None, dtype: str, count: int, least: int, context: int = LONGEST
) -> tuple[Answerer, Answers]:
    """Prompts of made questions about products whose descriptions have at least so many tokens."""
    from ragqa.index.tune import made_questions

    answerer = Answerer.from_pretrained(index, adapter=adapter, dtype=dtype)
    tokenizer = answerer.generator.tokenizer
    products = [p for p in answerer.index.store if len(tokenizer(p.description)["input_ids"]) >= least]
    products = products[:: max(1, len(products) // count)][:count]
    if len(products) < count:
        raise SystemExit(f"{index}: {len(products)} descriptions of at least {least} tokens, {count} are needed")
    found = answerer.retriever.retrieve(made_questions(products, SEED), 5)
    return answerer, prompted(answerer, found, context)


def prompted(answerer: Answerer, found: Sequence[Retrieval], context: int) -> Answers:
    """What was found, with prompts of at most so many tokens."""
    use = AnswerSettings(context_tokens=context, max_new_tokens=max(BUDGETS[LONGEST]))
    return list(zip(Writer(answerer.trained).prompts(answerer.generator, found, use), found, strict=True))


def stock(adapter: str | None, dtype: str, merged: bool = False) -> Any:
    """The same model as transformers and peft load it, or with the adapter merged into its weights."""
    from ragqa import models
    from ragqa.generation.adapter import read_adapter

    trained = read_adapter(adapter) if adapter else None
    name = str(trained.base["name"]) if trained else models.DEFAULT_GENERATOR
    model, tokenizer, _ = models.load_generator(name, "cpu", dtype, adapter=adapter)
    if merged:
        adapted: Any = model
        model = adapted.merge_and_unload(safe_merge=True)
    return Generator(model, tokenizer).model  # without the penalties of its own configuration


def continued(model: Any, rows: Sequence[Sequence[int]], most: int, pad: int, **how: Any) -> list[list[int]]:
    """What `generate` writes after token ids, without what it is filled up with."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + [*row] for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=most, do_sample=False, **how)
    ends = model.generation_config.eos_token_id
    found = []
    for row in out[:, width:].tolist():
        end = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
        found.append(row[:end])
    return found


def started(prompt: Prompt, written: Written, generator: Generator) -> list[int]:
    """What `generate` goes on after: the prompt and the number of the source that was chosen for it."""
    return [*prompt.ids, *(written.tokens[:1] if generator.choice else ())]


def know_instructions(generator: Generator, other: tuple[Prompt, Retrieval]) -> None:
    """Forget what was read of prompts but for one: what all begin with is known, as of the second question on."""
    decoder = generator.decoder
    assert decoder is not None and decoder.prefixes is not None  # noqa: S101, PT018
    decoder.prefixes.clear()
    generator.free([other[0]], Writing(1), [other[1]])


def timed(work: Callable[..., Any], *given: Any, **how: Any) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    begun = time.perf_counter()
    done = work(*given, **how)
    return time.perf_counter() - begun, done


def single(index: Path, adapter: str, dtype: str, count: int) -> dict[str, Any]:
    """One answer at a time: each way, question by question, and the reading limit."""
    import torch

    answerer, answers = asked(index, adapter, dtype, count, _LEAST)
    generator, plain, merged = answerer.generator, stock(adapter, dtype), stock(adapter, dtype, merged=True)
    pad = int(generator.tokenizer.pad_token_id)
    found_all = [found for _, found in answers]
    cells = []

    def read(ids: Sequence[int]) -> None:
        with torch.inference_mode():
            generator.model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)

    for prompt, found in answers[:2]:
        generator.free([prompt], Writing(8), [found])
        for model in (plain, merged):
            continued(model, [prompt.ids], 8, pad)
    for context, budget in ((context, budget) for context, budgets in BUDGETS.items() for budget in budgets):
        rows, answers = [], prompted(answerer, found_all, context)
        for number, (prompt, found) in enumerate(answers):
            know_instructions(generator, answers[number - 1])
            seconds, (written,) = timed(generator.free, [prompt], Writing(budget), [found])
            begin = started(prompt, written, generator)
            rest, most = list(written.tokens[len(begin) - len(prompt.ids) :]), len(written.tokens)
            reading, _ = timed(read, [*prompt.ids, *written.tokens])
            slow, same = timed(continued, plain, [begin], len(rest), pad)
            times = {"ragqa": seconds, "reading": reading, "generate": slow}
            times["generate, merged"], _ = timed(continued, merged, [begin], len(rest), pad)
            for way, model in (("look-up", plain), ("look-up, merged", merged)):
                times[way], _ = timed(continued, model, [begin], len(rest), pad, prompt_lookup_num_tokens=LOOKED_UP)
            rows.append(
                {
                    "seconds": times,
                    "prompt": len(prompt.ids),
                    "tokens": most,
                    "passes": written.passes,
                    "drafted": written.drafted,
                    "kept": written.kept,
                    "same": same[0] == rest,
                    "first_right": written.chosen == 0,
                }
            )
            print(context, budget, json.dumps(rows[-1]), file=sys.stderr, flush=True)
        cells.append({"context": context, "budget": budget, "rows": rows})
    return {"cells": cells}


def together(index: Path, adapter: str, dtype: str, count: int) -> dict[str, Any]:
    """Many answers at once, in batches of like length."""
    answerer, answers = asked(index, adapter, dtype, count, _BATCH_BUDGET + 16)
    generator, plain, merged = answerer.generator, stock(adapter, dtype), stock(adapter, dtype, merged=True)
    pad, cells = int(generator.tokenizer.pad_token_id), []
    found_all = [found for _, found in answers]
    generator.free([answers[0][0]], Writing(8), [answers[0][1]])
    context = min(BUDGETS)
    for size in BATCHES:
        answers = sorted(prompted(answerer, found_all, context), key=lambda one: len(one[0].ids))
        groups = [answers[start : start + size] for start in range(0, len(answers), size)]
        times, same, tokens = {"ragqa": 0.0, "generate": 0.0, "generate, merged": 0.0}, 0, 0
        know_instructions(generator, answers[-1])
        for group in groups:
            prompts, found = [prompt for prompt, _ in group], [one for _, one in group]
            seconds, written = timed(generator.free, prompts, Writing(_BATCH_BUDGET), found)
            begun = [started(prompt, one, generator) for prompt, one in zip(prompts, written, strict=True)]
            most = max(len(one.tokens) for one in written) - len(begun[0]) + len(prompts[0].ids)
            slow, given = timed(continued, plain, begun, most, pad)
            quicker, _ = timed(continued, merged, begun, most, pad)
            for way, took in zip(times, (seconds, slow, quicker), strict=True):
                times[way] += took
            tokens += sum(len(one.tokens) for one in written)
            for prompt, begin, one, other in zip(prompts, begun, written, given, strict=True):
                rest = list(one.tokens[len(begin) - len(prompt.ids) :])
                same += other[: len(rest)] == rest
            print(context, size, seconds, slow, quicker, file=sys.stderr, flush=True)
        cells.append(
            {"context": context, "batch": size, "answers": len(answers), "same": same, "tokens": tokens}
            | times
            | {"prompt": sum(len(prompt.ids) for prompt, _ in answers) / len(answers)}
        )
    return {"cells": cells}


def open_ended(index: Path, _: str, dtype: str, count: int) -> dict[str, Any]:
    """Text that is copied from nowhere: an advertisement, with the catalogue's entries in the prompt and without."""
    answerer, answers = asked(index, None, dtype, count, 60)
    generator, plain = answerer.generator, stock(None, dtype)
    tokenizer, pad, result = generator.tokenizer, int(generator.tokenizer.pad_token_id), {}
    for name, shown in (("without entries", False), ("with entries", True)):
        rows = []
        for prompt, found in answers:
            entries = "\n".join(s.description for s in prompt.shown) if shown else ""
            task = f"{entries}\nWrite a funny story about {found.candidates[0].product.title[:80]}, in your own words."
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": task.strip()}], add_generation_prompt=True, tokenize=False
            )
            ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            asking = Prompt(text, ids, prompt.shown if shown else ())
            seconds, (written,) = timed(generator.free, [asking], Writing(_OPEN_BUDGET))
            undrafted, _ = timed(generator.free, [asking], Writing(_OPEN_BUDGET, drafted=False))
            slow, same = timed(continued, plain, [ids], len(written.tokens), pad)
            rows.append(
                {
                    "seconds": {"ragqa": seconds, "without drafts": undrafted, "generate": slow},
                    "tokens": len(written.tokens),
                    "passes": written.passes,
                    "same": same[0] == list(written.tokens),
                }
            )
            print(name, json.dumps(rows[-1]), file=sys.stderr, flush=True)
        result[name] = rows
    return result


def equal(index: Path, adapter: str, dtype: str, count: int) -> dict[str, Any]:
    """Whether the tokens are those of `generate`, half of the questions asked of the adapter and half of its base model.

    Both write in batches, which is quicker and harder: what fills prompts up must count for nothing in either.
    """
    result: dict[str, Any] = {"budget": _EQUAL_BUDGET, "context": _EQUAL_CONTEXT}
    for name, path in (("adapter", adapter), ("base model", None)):
        answerer, answers = asked(index, path, dtype, count // 2, 60, _EQUAL_CONTEXT)
        generator, plain = answerer.generator, stock(path, dtype)
        pad, same, passes, tokens = int(generator.tokenizer.pad_token_id), 0, 0, 0
        answers.sort(key=lambda one: len(one[0].ids))
        for start in range(0, len(answers), _EQUAL_BATCH):
            prompts, found = zip(*answers[start : start + _EQUAL_BATCH], strict=True)
            written = generator.free(prompts, Writing(_EQUAL_BUDGET), found)
            begun = [started(prompt, one, generator) for prompt, one in zip(prompts, written, strict=True)]
            rests = [list(o.tokens[len(b) - len(p.ids) :]) for p, o, b in zip(prompts, written, begun, strict=True)]
            given = continued(plain, begun, max(map(len, rests)), pad)
            same += sum(other[: len(rest)] == rest for rest, other in zip(rests, given, strict=True))
            passes += sum(one.passes for one in written)
            tokens += sum(len(one.tokens) for one in written)
        result[name] = {"questions": len(answers), "same": same, "passes": passes, "tokens": tokens}
        print(name, result[name], file=sys.stderr, flush=True)
    return result


def memory(index: Path, adapter: str, dtype: str, count: int) -> dict[str, Any]:
    """The peak memory of ragqa, writing answers at once."""
    answerer, answers = asked(index, adapter, dtype, count, _BATCH_BUDGET + 16)
    written = answerer.generator.free([p for p, _ in answers], Writing(_BATCH_BUDGET), [f for _, f in answers])
    return {"answers": len(written)}


def memory_generate(index: Path, adapter: str, dtype: str, count: int) -> dict[str, Any]:
    """The peak memory of `generate`, for the same prompts."""
    answerer, answers = asked(index, adapter, dtype, count, _BATCH_BUDGET + 16)
    pad = int(answerer.generator.tokenizer.pad_token_id)
    del answerer  # its model must not count
    continued(stock(adapter, dtype), [p.ids for p, _ in answers], _BATCH_BUDGET, pad)
    return {"answers": len(answers)}


def reuse(index: Path, adapter: str, dtype: str, count: int) -> dict[str, Any]:
    """What is saved where prompts begin alike: with nothing known, the instructions known, all entries known."""
    answerer, answers = asked(index, adapter, dtype, count, 60)
    generator, seconds = answerer.generator, {}
    texts: dict[str, list[str]] = {}
    for name in ("nothing", "the instructions", "the entries"):
        times, texts[name] = [], []
        for number, (prompt, found) in enumerate(answers):
            know_instructions(generator, answers[number - 1 if name == "the instructions" else number])
            if name == "nothing":
                generator.decoder.prefixes.clear()
            took, (written,) = timed(generator.free, [prompt], Writing(64), [found])
            times.append(took)
            texts[name].append(written.text)
        seconds[name] = {"p50": statistics.median(times), "same": texts[name] == texts["nothing"]}
    return {"seconds": seconds, "answers": len(answers)}


STAGES: Final[dict[str, Callable[[Path, str, str, int], dict[str, Any]]]] = {
    "single": single,
    "together": together,
    "open": open_ended,
    "equal": equal,
    "memory": memory,
    "memory-generate": memory_generate,
    "reuse": reuse,
}

if __name__ == "__main__":
    main()
