"""What `benchmarks.scale` found: the marks, tables, and growth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.road import HERE

RESULT: Final = HERE / "results" / "scale.json"
PICTURE: Final = "scale-{}.svg"
PICTURES: Final = {
    "build": "seconds of the build by stage, over the number of products",
    "question": "milliseconds of a question, ragqa and peers, over the number of products",
    "memory": "memory and files over the number of products",
}
# What is timed of ragqa -> what it is called.
WAYS: Final = {
    "retrieve": "retrieve, whole",
    "embed": "embed the question",
    "dense": "dense search",
    "lexical": "lexical search",
    "titles": "lexical search, titles alone",
}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    parts = [
        _setting(result),
        marks(result),
        _builds(result),
        _files(result),
        _questions(result),
        _dense(result),
        _updates(result),
    ]
    parts += [
        _memory(result),
        _peers(result),
        *([_embedding(result["embedding"])] if result["embedding"] else []),
        _growth(result),
        *(f"![{shown}](../docs/{PICTURE.format(name)})" for name, shown in PICTURES.items()),
    ]
    return "\n\n".join(parts)


def _setting(result: dict[str, Any]) -> str:
    machine, measured, asked = result["machine"], result["measured"], result["asked"]
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items() if name not in ("python", "ragqa"))
    made = result["sizes"][_largest(result)]["make"]
    real = " + ".join(f"{count:,} {name}" for name, count in made["real"].items())
    return (
        f"Measured on {' to '.join(dict.fromkeys((measured['date'][0], measured['date'][-1])))} at commit "
        f"{', '.join(f'`{commit}`' for commit in measured['commit'])}: {machine['machine']}, computing with {machine['threads']} threads, "
        f"Python {machine['python']}, no GPU; {versions}. Of the {made['products']:,} products of the largest catalogue "
        f"{sum(made['real'].values()):,} are real ({real}) and {made['varied']:,} varied; {made['undescribed']:,} had no "
        f"description and are described by the words of their titles. {asked['single']} questions one by one, "
        f"{asked['many']} at once; 1 MB is 10^6 bytes."
    )


def marks(result: dict[str, Any]) -> str:
    """What was to be reached at the largest size, and whether it was."""
    largest = _largest(result)
    at = result["sizes"][largest]
    ms, recall = at["search"]["ms"], at["build"]["dense"]["recall_at_10"]
    rows: list[tuple[str, str, str, bool | None]] = [
        ("retrieve, whole, p50", "under 10 ms", f"{_ms(ms['retrieve']['p50'])} ms", ms["retrieve"]["p50"] < 10),
        ("dense search alone, p50", "under 2 ms", f"{_ms(ms['dense']['p50'])} ms", ms["dense"]["p50"] < 2),
        ("its recall@10 against exact search", "at least 0.95", f"{recall:.3f}", recall >= 0.95),
        _against(at["peers"], "rank-bm25", 50),
        _against(at["peers"], "bm25s", 1),
    ]
    disk, memory = sum(at["build"]["parts"].values()), at["search"]["memory"]["searching"]["resident"]
    start = statistics.median(at["start"]["warm"]["retrieved"])
    rows += [
        ("index and store on disk", "under 2,500 MB", f"{_mb(disk)} MB", disk < 2.5e9),
        ("resident while searching", "under 1,500 MB", f"{_mb(memory)} MB", memory < 1.5e9),
        ("start to first retrieval", "under 3 s", f"{start:.1f} s", start < 3),
    ]
    share = at["update"]["seconds"]["total"] / at["build"]["seconds"]["total"]
    rows.append(("updating one product in a hundred, of a build", "under 5 %", f"{share:.1%}", share < 0.05))
    said = {True: "yes", False: "**no**", None: ""}
    lines = [f"| mark | wanted | at {int(largest):,} | reached |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {wanted} | {found} | {said[met]} |" for name, wanted, found, met in rows])


def _against(peers: dict[str, Any], named: str, least: int) -> tuple[str, str, str, bool | None]:
    """Lexical search over titles, as the peers', beside the fastest of those whose names begin so."""
    found = {name: peer["ours"]["titles"]["ratio"] for name, peer in peers.items() if name.startswith(named)}
    fastest = min(found, key=lambda name: found[name][0], default=named)
    row = f"lexical search, titles alone, times as fast as {fastest}", f"at least {least}"
    return (*row, _times(found[fastest]), found[fastest][0] >= least) if found else (*row, "not measured", None)


def _builds(result: dict[str, Any]) -> str:
    stages = build_stages(result)
    lines = [
        "**Build**: seconds of each stage, and the most memory it held; *else*: starting, loading the embedder, checking",
        "",
        f"| products | all | {' | '.join(stages)} | else | titles/s embedded | peak memory |",
        "|---" * (len(stages) + 5) + "|",
    ]
    again = []
    for size, at in result["sizes"].items():
        build = at["build"]
        seconds = [build["seconds"].get(stage) for stage in stages]
        seconds.append(build["seconds"]["total"] - sum(one or 0 for one in seconds))
        rate = build["products"] / build["seconds"]["embed"] if build["seconds"].get("embed") else 0
        lines.append(
            f"| {build['products']:,} | {build['seconds']['total']:,.1f} | "
            f"{' | '.join('' if one is None else f'{one:,.1f}' for one in seconds)} | {rate:,.0f} | {_mb(build['peak'])} MB |"
        )
        again += [f"{int(size):,}"] if build["resumed"] else []
    if again:
        lines += ["", f"Interrupted and gone on with, so that times are too short: {', '.join(again)}."]
    return "\n".join(lines)


def _files(result: dict[str, Any]) -> str:
    parts = list(dict.fromkeys(name for at in result["sizes"].values() for name in at["build"]["parts"]))
    lines = [
        "**On disk**, MB",
        "",
        f"| products | all | bytes a product | {' | '.join(f'`{name}`' for name in parts)} |",
        "|---" * (len(parts) + 3) + "|",
    ]
    for at in result["sizes"].values():
        sizes, count = at["build"]["parts"], at["build"]["products"]
        total = sum(sizes.values())
        cells = [_mb(sizes.get(name, 0)) for name in parts]
        lines.append(f"| {count:,} | {_mb(total)} | {total / count:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _questions(result: dict[str, Any]) -> str:
    lines = [
        "**Asking**: milliseconds of a question (p50, and in brackets p95), and questions a second one by one and at once. "
        "Whole: taken apart, embedded, searched by vectors and by words, put in order, judged; the other columns are parts "
        "of it, without what joins them",
        "",
        f"| products | {' | '.join(WAYS.values())} | one by one | at once | dense at once |",
        "|---" * (len(WAYS) + 4) + "|",
    ]
    for at in result["sizes"].values():
        search = at["search"]
        cells = [f"{_ms(search['ms'][way]['p50'])} [{_ms(search['ms'][way]['p95'])}]" for way in WAYS]
        cells += [f"{1000 / search['ms']['retrieve']['mean']:,.0f}/s"]
        cells += [f"{search['many'][way]:,.0f}/s" for way in ("retrieve", "dense")]
        lines.append(f"| {at['build']['products']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _dense(result: dict[str, Any]) -> str:
    lines = [
        "**The dense index** that the build chose, what it predicted before, and what it measured then. *recall@10*: against "
        "exact search over the float32 vectors, on questions of the build's own that chose no parameter",
        "",
        "| products | index | parameters | recall@10 | questions | ms a search | predicted | s to train and add | predicted "
        "| vectors | predicted |",
        "|---" * 11 + "|",
    ]
    for at in result["sizes"].values():
        dense = at["build"]["dense"]
        predicted = dense["predicted"]
        cells = [f"{at['build']['products']:,}", f"`{dense['factory']}`", dense["parameters"] or "none"]
        cells += [f"{dense['recall_at_10']:.3f}", f"{dense['questions']}"]
        cells += [_ms(dense["latency_ms"]), _ms(predicted["latency_ms"])]
        cells += [f"{dense['seconds']:,.1f}", f"{predicted['seconds']:,.1f}"]
        cells += [f"{_mb(dense['bytes'])} MB", f"{_mb(predicted['memory'])} MB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _updates(result: dict[str, Any]) -> str:
    stages = list(dict.fromkeys(name for at in result["sizes"].values() for name in at["update"]["seconds"]))
    stages.remove("total")
    lines = [
        "**Update** to a catalogue of which one product in a hundred was changed, deleted, or added: seconds, and the share of "
        "what the build took",
        "",
        f"| products | added | changed | deleted | embedded | all | {' | '.join(stages)} | of a build | peak memory |",
        "|---" * (len(stages) + 8) + "|",
    ]
    for at in result["sizes"].values():
        update, whole = at["update"], at["build"]["seconds"]["total"]
        cells = [f"{update[what]:,}" for what in ("added", "changed", "deleted", "embedded")]
        cells += [f"{update['seconds'][stage]:,.1f}" for stage in ("total", *stages)]
        cells += [f"{update['seconds']['total'] / whole:.1%}", f"{_mb(update['peak'])} MB"]
        lines.append(f"| {at['build']['products']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _memory(result: dict[str, Any]) -> str:
    lines = [
        "**Start and memory**: from the start of a process to its first retrieval, seconds, median (and in brackets the "
        "range): with the files in the system's cache, of which `import ragqa` and opening, and with the index's files read "
        "from the disk. Resident after all questions: what is the process's own and stays, pages of the index's files that "
        "were touched and of libraries, which the system takes back when it needs room",
        "",
        "| products | start | importing | opening | start, from disk | resident | its own | of the index | of libraries |",
        "|---" * 9 + "|",
    ]
    for at in result["sizes"].values():
        warm, cold, held = at["start"]["warm"], at["start"]["cold"], at["search"]["memory"]["searching"]
        opening = [opened - imported for opened, imported in zip(warm["opened"], warm["imported"], strict=True)]
        cells = [_range(warm["retrieved"]), f"{statistics.median(warm['imported']):.1f}"]
        cells += [f"{statistics.median(opening):.1f}", _range(cold["retrieved"])]
        cells += [f"{_mb(held[what])} MB" for what in ("resident", "anonymous", "index_files", "other_files")]
        lines.append(f"| {at['build']['products']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _peers(result: dict[str, Any]) -> str:
    lines = [
        "**Beside peers**: each on the same titles in a process of its own, then ragqa beside it, the same questions turn by "
        "turn. *Times as fast*: the peer's time by ragqa's, median over questions with its 95 % interval (bootstrap by "
        "question). *Same*: share of questions with the same ten best scores (words), share of the peer's ten rows that "
        "ragqa finds (vectors: those of ragqa's index, searched exactly). Peers by words get ragqa's terms of the titles, "
        "made in the time given as *given*; peers by vectors get them from ragqa's index; txtai embeds by itself, up to "
        f"{result['peer_embedding_limit']:,} titles. Memory is the peer's whole process, once it has been asked",
        "",
        "| products | peer | given | ready in | peak memory | resident | its own | p50 [p95], ms | at once | "
        "ragqa's | p50, ms | times as fast | same |",
        "|---" * 13 + "|",
    ]
    for at in result["sizes"].values():
        for name, peer in at["peers"].items():
            ready = f"{peer['built_in']:,.1f} s"
            if name == "txtai hybrid":
                ready += f", {1000 * peer['built_in'] / at['build']['products']:.1f} ms a title"
            first = [f"{at['build']['products']:,}", name, f"{peer['prepared_in']:,.1f} s", ready]
            first += [f"{_mb(peer['peak'])} MB"]
            first += [f"{_mb(peer['memory'][what])} MB" for what in ("resident", "anonymous")]
            first += [f"{_ms(peer['ms']['p50'])} [{_ms(peer['ms']['p95'])}]"]
            first += [f"{peer['many']:,.0f}/s" if peer["many"] else ""]
            for way, ours in peer["ours"].items():
                alike = "" if ours["alike"] is None else f"{ours['alike']:.3f}"
                cells = [*first, WAYS[way], _ms(ours["ms"]["p50"]), _times(ours["ratio"]), alike]
                lines.append(f"| {' | '.join(cells)} |")
                first = [""] * len(first)
    few = {name: peer["questions"] for name, peer in result["sizes"][_largest(result)]["peers"].items()}
    lines += [
        f"\n{name} was asked {count} questions at the largest size."
        for name, count in few.items()
        if count < result["asked"]["single"]
    ]
    return "\n".join(lines)


def _embedding(found: dict[str, Any]) -> str:
    rates, dtypes, recall = found["rates"], found["dtype"], found["recall"]
    stock = rates["sentence-transformers"]
    lines = [
        f"**Embedding** the same {found['titles']:,} titles of the {found['of']:,}, turn by turn, {len(stock)} times each: "
        "median and range. The cosine is that of ragqa's vector and sentence-transformers', title by title; *recall@1*: share "
        "of questions made from a title each (in part, mistyped, re-ordered) whose nearest title it is. In int8 are titles "
        "alone (`build_index --dtype int8`)",
        "",
        "| | numbers | titles/s | times as fast | least cosine | mean cosine | recall@1 |",
        "|---|---|---|---|---|---|---|",
        f"| `SentenceTransformer.encode` | {dtypes['sentence-transformers']} | {_range(stock, 0)} | | | | "
        f"{recall['sentence-transformers']:.4f} |",
    ]
    for name, cosine in found["cosine"].items():
        ratios = [mine / theirs for mine, theirs in zip(rates[name], stock, strict=True)]
        lines.append(
            f"| ragqa | {dtypes[name]} | {_range(rates[name], 0)} | {_range(ratios, 2)} | {cosine['least']:.5f} | "
            f"{cosine['mean']:.5f} | {recall[name]:.4f} |"
        )
    return "\n".join(lines)


def costs(result: dict[str, Any]) -> dict[str, list[float]]:
    """What grows, by size: seconds, megabytes, milliseconds."""
    found: dict[str, list[float]] = {}
    for at in result["sizes"].values():
        build, search = at["build"], at["search"]
        one = {
            "build, s": build["seconds"]["total"],
            "peak memory of the build, MB": build["peak"] / 1e6,
            "on disk, MB": sum(build["parts"].values()) / 1e6,
            "resident while searching, MB": search["memory"]["searching"]["resident"] / 1e6,
            "of it its own, MB": search["memory"]["searching"]["anonymous"] / 1e6,
            "retrieve, whole, p50 ms": search["ms"]["retrieve"]["p50"],
            "dense search, p50 ms": search["ms"]["dense"]["p50"],
            "lexical search, p50 ms": search["ms"]["lexical"]["p50"],
            "start to first retrieval, s": statistics.median(at["start"]["warm"]["retrieved"]),
        }
        for name, cost in one.items():
            found.setdefault(name, []).append(cost)
    return found


def exponent(sizes: Sequence[float], cost: Sequence[float]) -> float | None:
    """The e with which cost ~ n^e, by least squares of log cost on log n; None from fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(c) for c in cost]).slope


def _growth(result: dict[str, Any]) -> str:
    sizes = [at["build"]["products"] for at in result["sizes"].values()]
    lines = [
        "**Growth**: cost ~ n^e, with e by least squares of the logarithms over all sizes, and between the two largest "
        f"alone, where what does not grow weighs least. *Times*: from {sizes[0]:,} to {sizes[-1]:,}, "
        f"{sizes[-1] / sizes[0]:,.0f} times as many",
        "",
        f"| cost | {' | '.join(f'{n:,}' for n in sizes)} | times | e | e of the last two |",
        "|---" * (len(sizes) + 4) + "|",
    ]
    for name, cost in costs(result).items():
        slopes = (exponent(sizes, cost), exponent(sizes[-2:], cost[-2:]))
        cells = [*map(_ms, cost), f"{cost[-1] / cost[0]:,.1f}", *("" if e is None else f"{e:.2f}" for e in slopes)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _largest(result: dict[str, Any]) -> str:
    return str(max(result["sizes"], key=int))


def build_stages(result: dict[str, Any]) -> list[str]:
    """The stages of a build that seconds are known of, in their order; small indexes go through fewer."""
    builds = [at["build"]["seconds"] for at in result["sizes"].values()]
    named = dict.fromkeys(name for seconds in reversed(builds) for name in seconds)
    return [name for name in named if name != "total"]


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _mb(value: float) -> str:
    return f"{value / 1e6:.1f}" if value < 99.95e6 else f"{value / 1e6:,.0f}"


def _times(found: Sequence[float]) -> str:
    return f"{_ms(found[0])} [{_ms(found[1])}, {_ms(found[2])}]"


def _range(values: Sequence[float], digits: int = 1) -> str:
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"
