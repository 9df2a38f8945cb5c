"""A toy English-German language pair, generated: a corpus to train on where nothing can be downloaded.

It has what makes German hard to generate: gender and case, adjective endings after each sort of article,
prepositions with their cases, separable verbs, the verb in second or in last place, perfect, modals, numbers.
Each English sentence has exactly one German one, and says all that is needed to find it.

``python examples/toy/language.py --out DIR`` writes ``{train,valid,test,test_long}.{en,de}``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from phrases import english_clause, verb_final, verb_first
from sentences import (
    TENSES,
    Draw,
    Pair,
    draw_main,
    draw_matrix,
    draw_referring,
    draw_subordinate,
    draw_tenses,
    main_clause,
)

from gift_fairseq.cli.options import Parser, whole
from gift_fairseq.errors import UserError, check_at_least, one_sentence
from gift_fairseq.io import written_whole

Shapes = dict[Callable[[Draw], Pair], float]  # with the weight of each
SIZES = {"train": 20000, "valid": 500, "test": 500, "test_long": 300}
SHORTEST, LONGEST = 5, 18  # words of a sentence of train, valid and test, in both languages
LONGEST_OF_ALL = 45  # words of a sentence of test_long, in both languages
MOST = 500_000  # sentences a split may have
TRIES_PER_SENTENCE = 20


def simple_sentence(draw: Draw) -> Pair:
    return main_clause(draw, draw_main(draw, told_time=0.6))


def question(draw: Draw) -> Pair:
    """ "Does he call Anna today?": the verb stands first."""
    tense = draw.pick(["present", "past", "can", "must", "will"])
    clause = draw_main(draw, tense, no=False)
    return f"{english_clause(clause, ask=True)}?", f"{verb_first(clause)}?"


def clause_with_reason(draw: Draw) -> Pair:
    """ "he calls Anna because ...": the German verb is last in the second clause."""
    if draw.chance(0.2):
        (en, de), (main, subordinate) = ("because", "weil"), draw_referring(draw)
    else:
        (en, de), main_tense, tense = draw_tenses(draw)
        main, subordinate = draw_main(draw, main_tense, 0.3, rich=False), draw_subordinate(draw, tense)
    english, german = main_clause(draw, main)
    return f"{english} {en} {english_clause(subordinate)}", f"{german}, {de} {verb_final(subordinate)}"


def reason_first(draw: Draw) -> Pair:
    """ "Because ..., he calls Anna": a clause in the first place leaves the second to the main verb."""
    (en, de), main_tense, tense = draw_tenses(draw)
    subordinate, main = draw_subordinate(draw, tense), draw_main(draw, main_tense, 0.2, rich=False)
    english = f"{en} {english_clause(subordinate)}, {english_clause(main)}"
    return english, f"{de} {verb_final(subordinate)}, {verb_first(main)}"


def reported(draw: Draw) -> Pair:
    """ "she hopes that ..."."""
    english, german, _ = draw_matrix(draw)
    clause = draw_subordinate(draw, draw.weighted(TENSES))
    return f"{english} {english_clause(clause)}", f"{german} {verb_final(clause)}"


def coordinated(draw: Draw) -> Pair:
    """ "..., and ..."; German sets no comma before und, unless a subordinate clause has ended there."""
    first, second = (main_clause(draw, draw_main(draw, told_time=0.25, rich=False)) for _ in range(2))
    return _join(draw, first, second, comma=False)


def _join(draw: Draw, first: Pair, second: Pair, comma: bool) -> Pair:
    if draw.chance(0.5):
        return f"{first[0]}, but {second[0]}", f"{first[1]}, aber {second[1]}"
    return f"{first[0]}, and {second[0]}", f"{first[1]}{',' if comma else ''} und {second[1]}"


SHORT: Shapes = {
    simple_sentence: 0.36,
    question: 0.08,
    clause_with_reason: 0.2,
    reason_first: 0.12,
    reported: 0.14,
    coordinated: 0.1,
}


def reason_first_and_more(draw: Draw) -> Pair:
    """ "Because ..., ..., but ... because ..."."""
    return _join(draw, reason_first(draw), draw.pick([clause_with_reason, reported])(draw), comma=False)


def reason_and_more(draw: Draw) -> Pair:
    """ "... because ..., and she hopes that ..."."""
    return _join(draw, clause_with_reason(draw), draw.pick([reported, simple_sentence])(draw), comma=True)


def reported_with_reason(draw: Draw) -> Pair:
    """ "she hopes that ... because ..., but ..."."""
    english, german, _ = draw_matrix(draw)
    (en, de), main_tense, tense = draw_tenses(draw)
    what, why = draw_main(draw, main_tense, 0.3), draw_subordinate(draw, tense)
    english = f"{english} {english_clause(what)} {en} {english_clause(why)}"
    german = f"{german} {verb_final(what)}, {de} {verb_final(why)}"
    return _join(draw, (english, german), simple_sentence(draw), comma=True)


def reported_twice(draw: Draw) -> Pair:
    """ "she hopes that ... and that ..."."""
    english, german, _ = draw_matrix(draw)
    clauses = [draw_main(draw, told_time=0.4) for _ in range(2)]
    and_en, and_de = f" and {english.split()[-1]} ", f" und {german.split()[-1]} "
    english = f"{english} {and_en.join(english_clause(clause) for clause in clauses)}"
    return english, f"{german} {and_de.join(verb_final(clause) for clause in clauses)}"


def reason_first_then_reported(draw: Draw) -> Pair:
    """ "Because ..., she hopes that ..., and ..."."""
    (en, de), _, tense = draw_tenses(draw)
    subordinate, what = draw_subordinate(draw, tense, rich=True), draw_main(draw, told_time=0.3)
    english, _, german = draw_matrix(draw)
    english = f"{en} {english_clause(subordinate)}, {english} {english_clause(what)}"
    german = f"{de} {verb_final(subordinate)}, {german} {verb_final(what)}"
    return _join(draw, (english, german), simple_sentence(draw), comma=True)


LONG: Shapes = {
    reason_first_and_more: 1,
    reason_and_more: 1,
    reported_with_reason: 1,
    reported_twice: 1,
    reason_first_then_reported: 1,
}


def finish(text: str) -> str:
    """Sentence-initial capital and final mark; a relative clause's last comma yields to any mark after it."""
    text = text.rstrip(",")
    text = text if text.endswith("?") else f"{text}."
    for mark in ".?,":
        text = text.replace(f",{mark}", mark)
    return text[0].upper() + text[1:]


def _fits(pair: Pair, least: int, most: int) -> bool:
    return all(least <= len(side.split()) <= most for side in pair)


def _sentences(draw: Draw, shapes: Shapes, least: int, most: int, size: int, options: str) -> list[Pair]:
    """``size`` pairs, distinct in both languages, of ``least`` to ``most`` words, as ``options`` asked."""
    pairs: list[Pair] = []
    seen_en: set[str] = set()
    seen_de: set[str] = set()
    tries = TRIES_PER_SENTENCE * size
    for _ in range(tries):
        if len(pairs) == size:
            break
        draw.used.clear()
        english, german = draw.weighted(shapes)(draw)
        pair = finish(english), finish(german)
        if _fits(pair, least, most) and pair[0] not in seen_en and pair[1] not in seen_de:
            pairs.append(pair)
            seen_en.add(pair[0])
            seen_de.add(pair[1])
    if len(pairs) < size:
        raise UserError(f"{options} is too much: {tries} tries gave {len(pairs)} distinct sentences, so ask for less")
    return pairs


def check_sizes(sizes: Mapping[str, int] | None) -> dict[str, int]:
    """The default sizes with ``sizes`` over them; :class:`UserError` names the option that is wrong."""
    sizes = {**SIZES, **(sizes or {})}
    for split, size in sizes.items():
        if split not in SIZES:
            raise UserError(f"split is {split}, but must be one of {', '.join(SIZES)}")
        if not 1 <= size <= MOST:
            raise UserError(f"{_option(split)} is {size}, but must be between 1 and {MOST}")
    return sizes


def _option(split: str) -> str:
    return f"--{split.replace('_', '-')}"


def generate(seed: int = 1, sizes: Mapping[str, int] | None = None) -> dict[str, list[Pair]]:
    """All splits as lists of (English, German). A split that ``sizes`` leaves out has its default size.

    test and valid are drawn before train: they depend on the seed, and not on how large train is.
    """
    check_at_least("--seed", seed, 0)
    sizes = check_sizes(sizes)
    order = ("test", "valid", "train")
    total = sum(sizes[split] for split in order)
    options = " with ".join(f"{_option(split)} {sizes[split]}" for split in reversed(order))
    pairs = _sentences(Draw(2 * seed), SHORT, SHORTEST, LONGEST, total, options)
    splits = {}
    for split in order:
        splits[split], pairs = pairs[: sizes[split]], pairs[sizes[split] :]
    size = sizes["test_long"]
    splits["test_long"] = _sentences(Draw(2 * seed + 1), LONG, LONGEST + 1, LONGEST_OF_ALL, size, f"--test-long {size}")
    return {split: splits[split] for split in SIZES}


def write(out_dir: str, seed: int = 1, sizes: Mapping[str, int] | None = None) -> dict[str, list[Pair]]:
    """Writes ``{split}.en`` and ``{split}.de`` into ``out_dir``, and returns what :func:`generate` does.

    Nothing appears under its own name before everything has been written in full.
    """
    splits = generate(seed, sizes)
    texts = {
        os.path.join(out_dir, f"{split}.{language}"): "".join(f"{pair[side]}\n" for pair in pairs)
        for split, pairs in splits.items()
        for side, language in enumerate(("en", "de"))
    }
    try:
        os.makedirs(out_dir, exist_ok=True)
        with written_whole(*texts) as files:
            for out, text in zip(files, texts.values()):
                out.write(text)
    except OSError as error:
        raise UserError(f"--out is {out_dir}, but must be a folder to write into: {error.strerror}") from None
    return splits


def main(args: list[str] | None = None) -> None:
    with one_sentence("language.py"):
        parser = Parser(prog="python examples/toy/language.py", description=(__doc__ or "").split("\n")[0])
        parser.add_argument("--out", required=True, metavar="DIR", help="folder to write into; made if missing")
        parser.add_argument("--seed", type=whole(0), default=1, metavar="N", help="of the random choices")
        for split, default in SIZES.items():
            help = f"sentence pairs in {split}, {MOST} at most"
            parser.add_argument(_option(split), type=whole(1), default=default, metavar="N", help=help)
        options = parser.parse_args(args)
        splits = write(options.out, options.seed, {split: getattr(options, split) for split in SIZES})
    written = ", ".join(f"{split} ({len(pairs)} pairs)" for split, pairs in splits.items())
    print(f"wrote {written} to {options.out}")


if __name__ == "__main__":
    main()
