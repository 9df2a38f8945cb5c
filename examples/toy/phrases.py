"""Agreement in the toy language pair: articles, adjective endings, cases, contractions, numbers, clauses.

Everything here is a function of its arguments; what is drawn at random is in ``sentences.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lexicon import FINITE, NAMES, POSSESSIVES, Adjective, Noun, Verb

CASES = ("nom", "acc", "dat")


def words(*parts: str) -> str:
    """``parts`` with single blanks between them, without those that are empty."""
    return " ".join(filter(None, parts))


class Phrase(NamedTuple):
    """A noun phrase in both languages. ``german`` has one text for each case.

    ``person``: 1s, 3s, 1p or 3p. ``own``: the English possessive that refers back to it, or "" where German
    usage wavers (das Mädchen). ``gender``: m, f, n, or p for plural. ``light``: a pronoun or a name, to stand
    before the time in German, and before the particle in English ("picks Anna up").
    """

    en: str
    en_object: str
    german: dict[str, str]
    person: str
    own: str
    gender: str
    light: bool = False


# Endings by case, for masculine, feminine, neuter and plural; "-" is no ending.
STRONG = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}  # no article; dieser and jeder
MIXED = {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"}  # after ein, kein and possessives
WEAK = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}  # after der, dieser and jeder
ARTICLE = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
EIN = {"nom": "- e - e", "acc": "en e - e", "dat": "em er em en"}


def _cell(table: dict[str, str], case: str, gender: str) -> str:
    return table[case].split()["mfnp".index(gender)].replace("-", "")


def _determiner(det: str, case: str, gender: str) -> tuple[str, dict[str, str]]:
    """The German determiner, and the endings that adjectives take after it."""
    if det == "the":
        return _cell(ARTICLE, case, gender), WEAK
    if det in ("this", "every"):
        return {"this": "dies", "every": "jed"}[det] + _cell(STRONG, case, gender), WEAK
    if det == "a" and gender != "p":
        return "ein" + _cell(EIN, case, gender), MIXED
    if det == "no" or det in POSSESSIVES:
        return POSSESSIVES.get(det, "kein") + _cell(EIN, case, gender), MIXED
    if det in NAMES:
        return f"{det}s", STRONG  # a genitive before the noun takes the article's place: Annas alter Hund
    return "", STRONG


def _german_noun(noun: Noun, case: str, plural: bool) -> str:
    """Dative plural adds an n, unless the plural ends in n or s."""
    if not plural:
        return noun.de
    return noun.de_plural + ("n" if case == "dat" and noun.de_plural[-1] not in "ns" else "")


def _english_determiner(det: str, plural: bool, following: str) -> str:
    if det == "a":
        return "" if plural else "an" if following[0] in "aeiou" else "a"
    if det in NAMES:
        return f"{det}'s"
    return "these" if det == "this" and plural else det


def noun_phrase(
    det: str, noun: Noun, adjectives: Sequence[Adjective] = (), count: int | str = 1, very: bool = False
) -> Phrase:
    """``det``: the, a, no, this, every, a possessive (my), a name (for Anna's), or "" for none.

    ``count``: 1 for the singular; "many" for a bare plural; a number from 2 to 199 is written out, and a text
    of digits ("43") stays digits.
    """
    plural = count != 1
    gender = "p" if plural else noun.gender
    en_count, de_count = _count_words(count)
    en_noun = noun.en_plural if plural else noun.en
    english = words(en_count, "very" if very else "", *(a.en for a in adjectives), en_noun)
    english = f"{_english_determiner(det, plural, english)} {english}".strip()
    german = {}
    for case in CASES:
        article, endings = _determiner(det, case, gender)
        declined = [a.stem + _cell(endings, case, gender) for a in adjectives]
        de_noun = _german_noun(noun, case, plural)
        german[case] = words(article, de_count, "sehr" if very else "", *declined, de_noun)
    own = {"m": "his", "f": "her", "n": "", "p": "their"}[gender]
    return Phrase(english, english, german, "3p" if plural else "3s", own, gender)


def _count_words(count: int | str) -> tuple[str, str]:
    if count in (1, "many"):
        return "", ""
    return (count, count) if isinstance(count, str) else (english_number(count), german_number(count))


_EN_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_EN_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
_DE_SMALL = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn "
    "siebzehn achtzehn neunzehn"
).split()
_DE_TENS = "- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()


def english_number(number: int) -> str:
    """Of 0 to 199, in British English: one hundred and thirty-seven."""
    if number >= 100:
        return "one hundred" + (f" and {english_number(number - 100)}" if number > 100 else "")
    if number < 20:
        return _EN_SMALL[number]
    tens, ones = divmod(number, 10)
    return _EN_TENS[tens] + (f"-{_EN_SMALL[ones]}" if ones else "")


def german_number(number: int) -> str:
    """Of 0 to 199, in one word with the ones before the tens: einhundertsiebenunddreißig."""
    if number >= 100:
        return "einhundert" + (german_number(number - 100) if number > 100 else "")
    if number < 20:
        return _DE_SMALL[number]
    tens, ones = divmod(number, 10)
    first = "ein" if ones == 1 else _DE_SMALL[ones]
    return (f"{first}und" if ones else "") + _DE_TENS[tens]


CONTRACTIONS = {
    "in dem": "im",
    "in das": "ins",
    "an dem": "am",
    "von dem": "vom",
    "zu dem": "zum",
    "zu der": "zur",
}


def prepositional(preposition: str, phrase: Phrase, case: str) -> str:
    """German preposition and noun phrase, with the contractions that standard German has (im, zum, ...)."""
    first, _, rest = phrase.german[case].partition(" ")
    contracted = CONTRACTIONS.get(f"{preposition} {first}")
    return f"{contracted} {rest}" if contracted else f"{preposition} {first} {rest}".strip()


class Predicate(NamedTuple):
    """A verb in one tense and person. German: ``finite`` in second place and ``close`` at the end of a main
    clause, or ``final`` at the end of a subordinate one. English: ``says``, or ``asks`` around the subject.
    """

    finite: str
    close: str
    final: str
    says: str
    asks: tuple[str, str]


PRESENT_BE = {"1s": "am", "3s": "is", "1p": "are", "3p": "are"}
PAST_BE = {"1s": "was", "3s": "was", "1p": "were", "3p": "were"}


def conjugate(verb: Verb, tense: str, person: str) -> Predicate:
    """``tense``: present, past (German perfect), will, or a modal (can, must, want, may, wanted, had to)."""
    singular = person == "3s"
    if tense == "present":
        ich = verb.infinitive[:-2] + "e"
        finite = {"1s": ich, "3s": verb.third}.get(person, verb.infinitive)
        says, asks = (verb.en_third, "does") if singular else (verb.en, "do")
        return Predicate(finite, verb.particle, verb.particle + finite, says, (asks, verb.en))
    if tense == "past":
        finite, close = FINITE[verb.auxiliary][person], verb.participle
        says, asks = verb.en_past, "did"
    else:
        finite, close = FINITE[tense][person], verb.particle + verb.infinitive
        want = "wants to" if singular else "want to"
        may = f"{PRESENT_BE[person]} allowed to"
        modal = {"want": want, "wanted": "wanted to", "may": may}.get(tense, tense)
        says, asks = f"{modal} {verb.en}", tense  # only can, must and will are asked
    return Predicate(finite, close, f"{close} {finite}", says, (asks, verb.en))


def be(tense: str, person: str) -> Predicate:
    """The copula, which German puts into the preterite where other verbs take the perfect."""
    finite = FINITE["sein" if tense == "present" else "war"][person]
    english = (PRESENT_BE if tense == "present" else PAST_BE)[person]
    return Predicate(finite, "", finite, english, (english, ""))


class Clause(NamedTuple):
    """What orders share; German has ``early`` (pronouns, names) before the time, ``middle`` after it."""

    subject: Phrase
    predicate: Predicate
    en_tail: str
    time: tuple[str, str]
    early: str
    middle: str


def english_clause(clause: Clause, front_time: bool = False, ask: bool = False) -> str:
    """Subject, verb, objects, place and time; the time may come first."""
    time, subject, predicate = clause.time[0], clause.subject.en, clause.predicate
    if ask:
        return words(predicate.asks[0], subject, predicate.asks[1], clause.en_tail, time)
    said = words(subject, predicate.says, clause.en_tail)
    return words(time, said) if front_time else words(said, time)


def verb_second(clause: Clause, front_time: bool = False) -> str:
    """The finite verb is the second constituent: "sie ruft heute Anna an", "heute ruft sie Anna an"."""
    if front_time:
        return words(clause.time[1], verb_first(clause._replace(time=("", ""))))
    subject, predicate = clause.subject.german["nom"], clause.predicate
    return words(subject, predicate.finite, clause.early, clause.time[1], clause.middle, predicate.close)


def verb_first(clause: Clause) -> str:
    """As a question has it, and as what follows a fronted clause has it: "ruft sie heute Anna an"."""
    subject, predicate = clause.subject.german["nom"], clause.predicate
    return words(predicate.finite, subject, clause.early, clause.time[1], clause.middle, predicate.close)


def verb_final(clause: Clause) -> str:
    """As a subordinate clause has it; a separable verb is in one word there: "sie heute Anna anruft"."""
    subject, predicate = clause.subject.german["nom"], clause.predicate
    return words(subject, clause.early, clause.time[1], clause.middle, predicate.final)
