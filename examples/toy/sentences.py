"""Random sentences of the toy language pair: what is drawn is a meaning, and both languages say it.

Each draw is ``random()`` of ``random.Random``, which Python promises to keep: a seed gives the same sentences
everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import lexicon
from phrases import (
    CASES,
    Clause,
    Phrase,
    be,
    conjugate,
    english_clause,
    english_number,
    german_number,
    noun_phrase,
    prepositional,
    verb_final,
    verb_second,
    words,
)

Pair = tuple[str, str]
T = TypeVar("T")
NONE = ("", "")


class Draw:
    """Random choices, which avoid a noun or a name that the sentence already has."""

    def __init__(self, seed: int):
        self._random = random.Random(seed).random
        self.used: set[str] = set()

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def number(self, least: int, most: int) -> int:
        return least + int(self._random() * (most - least + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def weighted(self, options: dict[T, float]) -> T:
        possible = [(option, weight) for option, weight in options.items() if weight > 0]
        left = self._random() * sum(weight for _, weight in possible)
        for option, weight in possible:
            left -= weight
            if left < 0:
                return option
        return possible[-1][0]  # the sum was rounded up

    def unused(self, options: Sequence[T], name: Callable[[T], str]) -> T:
        """One not yet in this sentence; after eight tries any, for a long sentence may run out of a kind."""
        for _ in range(8):
            option = self.pick(options)
            if name(option) not in self.used:
                break
        self.used.add(name(option))
        return option


OF_KIND = {kind: [noun for noun in lexicon.NOUNS if noun.kind == kind] for kind in "PKATMLH"}
SUITING = {kind: [adj for adj in lexicon.ADJECTIVES if kind in adj.kinds] for kind in "PKATMLH"}


def draw_noun_phrase(draw: Draw, kinds: str, own: str = "", no: bool = False, bare: bool = True) -> Phrase:
    """A noun of one of ``kinds``; ``own`` is the subject's possessive; ``no`` and ``bare`` allow these."""
    kind = draw.pick(kinds)
    noun = draw.unused(OF_KIND[kind], lambda option: option.de)
    det = _draw_determiner(draw, kind, own, no)
    count = 1 if kind == "M" or det == "every" else _draw_count(draw, kind, det, bare)
    if count not in (1, "many") and det == "a":
        det = ""  # "twenty-three old houses" has no article
    adjectives = _draw_adjectives(draw, kind)
    very = det != "no" and len(adjectives) == 1 and draw.chance(0.08)
    return noun_phrase(det, noun, adjectives, count, very)


def _draw_determiner(draw: Draw, kind: str, own: str, no: bool) -> str:
    if kind == "M":
        return draw.weighted({"": 0.7, "the": 0.2, "no": 0.1 if no else 0})
    weights = {"the": 0.35, "a": 0.4, "this": 0.08}
    weights["no"] = 0.12 if no and kind in "AT" else 0  # "calls no woman" is no English
    weights["every"] = 0.05 if kind == "P" else 0
    if kind in "KATH":  # "my man" would be a husband, "her station" an oddity
        possessive = own if own and draw.chance(0.7) else draw.pick(["my", "our"])
        weights[possessive] = 0.6 if kind == "K" else 0.25
        weights["name"] = 0.1
    det = draw.weighted(weights)
    return draw.unused(list(lexicon.NAMES), str) if det == "name" else det


def _draw_count(draw: Draw, kind: str, det: str, bare: bool) -> int | str:
    if draw.chance(0.5 if kind in "TLH" else 0.68):
        return 1
    if det in ("no", "this") or not bare:
        return "many" if det != "a" else draw.number(2, 12)
    if det != "a":
        return draw.number(2, 12) if draw.chance(0.2) else "many"
    if draw.chance(0.4):
        return "many"
    if kind in "PKAH":
        return draw.number(2, 12)
    number = draw.pick([draw.number(2, 20), draw.number(21, 99), draw.number(21, 99), draw.number(100, 199)])
    if number == 101:  # whether 101 takes a plural is a matter of taste in German
        return 102
    return str(number) if number > 12 and draw.chance(0.4) else number


def _draw_adjectives(draw: Draw, kind: str) -> list[lexicon.Adjective]:
    if draw.chance(0.5):
        return []
    first = draw.pick(SUITING[kind])
    if kind == "T" and first not in lexicon.COLOURS and draw.chance(0.25):
        return [first, draw.pick(lexicon.COLOURS)]
    return [first]


def draw_name(draw: Draw) -> Phrase:
    name = draw.unused(list(lexicon.NAMES), str)
    own = {"m": "his", "f": "her"}[lexicon.NAMES[name]]
    return Phrase(name, name, dict.fromkeys(CASES, name), "3s", own, lexicon.NAMES[name], light=True)


def draw_pronoun(draw: Draw, subject: Phrase | None = None) -> Phrase:
    """As an object it is none that repeats a first person subject ("I help us")."""
    rows = lexicon.PRONOUNS[:3] if subject and subject.person[0] == "1" else lexicon.PRONOUNS
    en, en_object, nom, acc, dat, person, own = draw.pick(rows)
    return Phrase(en, en_object, {"nom": nom, "acc": acc, "dat": dat}, person, own, "", light=True)


def draw_subject(draw: Draw, rich: bool = True) -> Phrase:
    """A person, or two; ``rich`` ones may carry a relative clause or say what they have on them."""
    kind = draw.weighted({"pronoun": 0.18, "name": 0.2, "pair": 0.06, "noun": 0.56})
    if kind == "pronoun":
        return draw_pronoun(draw)
    if kind == "name":
        return draw_name(draw)
    if kind == "pair":
        return _both(draw_name(draw), draw_noun_phrase(draw, "PK", bare=False))
    phrase = draw_noun_phrase(draw, "PPK")
    if not rich or draw.chance(0.7) or phrase.en.split()[0] not in ("the", "a", "an", "this", "these"):
        return phrase
    return _with_relative_clause(draw, phrase) if draw.chance(0.6) else _with_attribute(draw, phrase)


def _both(one: Phrase, other: Phrase) -> Phrase:
    german = {case: f"{one.german[case]} und {other.german[case]}" for case in CASES}
    english = f"{one.en} and {other.en}"
    return Phrase(english, english, german, "3p", "their", "p")


def _with_attribute(draw: Draw, phrase: Phrase) -> Phrase:
    """ "the woman with the red hat", "the man from the village"."""
    if draw.chance(0.5):
        worn = [lexicon.NOUN[en] for en in ("hat", "coat", "bag", "umbrella", "shirt")]
        noun = draw.unused(worn, lambda option: option.de)
        thing = noun_phrase(draw.pick(["the", "a"]), noun, [draw.pick(SUITING["T"])])
        english, german = f"with {thing.en}", prepositional("mit", thing, "dat")
    else:
        noun = draw.unused([lexicon.NOUN[en] for en in ("village", "city")], lambda option: option.de)
        place = noun_phrase("the", noun, _draw_adjectives(draw, "L"))
        english, german = f"from {place.en}", prepositional("aus", place, "dat")
    english = f"{phrase.en} {english}"
    return phrase._replace(
        en=english, en_object=english, german={case: f"{phrase.german[case]} {german}" for case in CASES}
    )


def _with_relative_clause(draw: Draw, phrase: Phrase) -> Phrase:
    """ "the woman who calls Anna": German sets commas around it; punctuation may swallow the second."""
    pronoun = {"m": "der", "f": "die", "n": "das", "p": "die"}[phrase.gender]
    who = phrase._replace(en="who", german={"nom": pronoun})
    clause = draw_clause(draw, draw.pick(["present", "past"]), who, told_time=0.15)
    english = f"{phrase.en} {english_clause(clause)}"
    german = {case: f"{phrase.german[case]}, {verb_final(clause)}," for case in CASES}
    return phrase._replace(en=english, en_object=english, german=german)


def draw_time(draw: Draw, tense: str) -> Pair:
    """A time that fits the tense, some with a number in it."""
    group = {"present": "present", "past": "past", "wanted": "past", "had to": "past"}.get(tense, "future")
    if draw.chance(0.65):
        return draw.pick(lexicon.TIMES[group])
    if draw.chance(0.5):
        hour = draw.number(2, 12)
        as_word = draw.chance(0.6)
        en, de = (english_number(hour), german_number(hour)) if as_word else (str(hour), str(hour))
        return f"at {en} o'clock", f"um {de} Uhr"
    if group == "past" and draw.chance(0.5):
        year = draw.number(1950, 2020)
        return f"in {year}", f"im Jahr {year}"
    number, (en_unit, de_unit) = draw.number(2, 12), draw.pick(lexicon.UNITS)
    en, de = english_number(number), german_number(number)
    if group == "past":
        return f"{en} {en_unit} ago", f"vor {de} {de_unit}"
    return (f"in {en} {en_unit}", f"in {de} {de_unit}") if group == "future" else ("today", "heute")


def draw_place(draw: Draw, relation: str, own: str = "") -> Pair:
    """``relation``: where, to or from."""
    phrase_kind = draw.pick("LLH")
    noun = draw.unused(OF_KIND[phrase_kind], lambda option: option.de)
    det = draw.weighted({"the": 0.7, "a": 0.15, "this": 0.05, (own or "our"): 0.1 if phrase_kind == "H" else 0})
    phrase = noun_phrase(det, noun, _draw_adjectives(draw, phrase_kind))
    en, de, case = draw.pick(lexicon.PLACES[noun.en][relation])
    return f"{en} {phrase.en}", prepositional(de, phrase, case)


def draw_clause(draw: Draw, tense: str, subject: Phrase, told_time: float = 0.4, no: bool = True) -> Clause:
    """A verb with all it takes. German puts the place before the object, English after it."""
    verb = draw.pick(lexicon.VERBS)
    if verb.extra == "state" and tense not in ("present", "past"):
        tense = "present"
    # "must buy no hat" and "every man buys no hat" could mean two things
    no = no and tense in ("present", "past") and not subject.en.startswith("every") and verb.frame == "acc"
    en_object, early, middle = _draw_object(draw, verb, subject, no)
    en_extra, de_before, de_after = _draw_extra(draw, verb, subject)
    time = draw_time(draw, tense) if verb.extra != "state" and draw.chance(told_time) else NONE
    return Clause(
        subject,
        conjugate(verb, tense, subject.person),
        words(en_object, en_extra),
        time,
        early,
        words(de_before, middle, de_after),
    )


def _draw_object(draw: Draw, verb: lexicon.Verb, subject: Phrase, no: bool) -> tuple[str, str, str]:
    """English, and German before and after the time."""
    if verb.frame == "none":
        return "", "", ""
    if verb.frame in ("to", "from", "where"):
        en, de = draw_place(draw, verb.frame, subject.own)
        return en, "", de
    if verb.frame == "dat+acc":
        receiver = _draw_person(draw, subject, True)
        # after "her", a bare plural would read as hers: "shows her books"
        thing = draw_noun_phrase(draw, verb.kinds, subject.own, bare=False)
        return f"{receiver.en_object} {thing.en}", receiver.german["dat"], thing.german["acc"]
    if "K" in verb.kinds and draw.chance(0.5):
        phrase = _draw_person(draw, subject, verb.frame in ("acc", "dat"))
    else:
        phrase = draw_noun_phrase(draw, verb.kinds, subject.own, no)
    particle_last = phrase.light and verb.en_particle
    english = words(phrase.en_object, verb.en_particle) if particle_last else words(verb.en_particle, phrase.en_object)
    if "+" in verb.frame:
        preposition, case = verb.frame.split("+")
        return english, "", prepositional(preposition, phrase, case)
    german = phrase.german[verb.frame]
    return (english, german, "") if phrase.light else (english, "", german)


def _draw_person(draw: Draw, subject: Phrase, bare_pronoun: bool) -> Phrase:
    kind = draw.weighted({"pronoun": 0.25 if bare_pronoun else 0.1, "name": 0.25, "noun": 0.6})
    if kind == "pronoun":
        return draw_pronoun(draw, subject)
    return draw_name(draw) if kind == "name" else draw_noun_phrase(draw, "PKK", subject.own, bare=False)


def _draw_extra(draw: Draw, verb: lexicon.Verb, subject: Phrase) -> tuple[str, str, str]:
    """What the verb may have besides: English, German before the object and after it."""
    if verb.extra == "at" and draw.chance(0.35):
        en, de = draw_place(draw, "where", subject.own)
        return en, de, ""
    if verb.extra == "for" and draw.chance(0.4):
        person = _draw_person(draw, subject, False)
        return f"for {person.en_object}", "", prepositional("für", person, "acc")
    if verb.extra == "with" and draw.chance(0.35):
        company = draw_noun_phrase(draw, "AK", subject.own, bare=False)
        if draw.chance(0.5):
            return f"with {company.en}", prepositional("mit", company, "dat"), ""
        return f"without {company.en}", prepositional("ohne", company, "acc"), ""
    return "", "", ""


def _is_known(adjective: lexicon.Adjective, said: list[str]) -> bool:
    """Whether the words already said repeat or contradict it ("the old lamp is new")."""
    related = {adjective.en}.union(*(group for group in lexicon.CONTRARY if adjective.en in group))
    return any(word in related for word in said)


def draw_description(draw: Draw, tense: str, subject: Phrase | None = None, known: str = "") -> Clause:
    """ "the lamp is too expensive"; ``known`` holds words not to say again ("the old lamp is old")."""
    kind = "T" if subject or draw.chance(0.4) else "K"
    if subject is None:
        subject = draw_subject(draw, rich=False) if kind == "K" else draw_noun_phrase(draw, "T", bare=False)
    said = (known or subject.en).split()
    adjective = draw.pick([adjective for adjective in SUITING[kind] if not _is_known(adjective, said)])
    en, de = draw.weighted({NONE: 0.4, ("very", "sehr"): 0.3, ("too", "zu"): 0.3})
    return Clause(subject, be(tense, subject.person), words(en, adjective.en), NONE, "", words(de, adjective.de))


TENSES = {"present": 0.34, "past": 0.32, "will": 0.1, "can": 0.06, "must": 0.06, "want": 0.06, "may": 0.02}
TENSES.update({"wanted": 0.03, "had to": 0.03})
REASON_TENSES = {  # which tenses the clause after because and although may have, by that of the main clause
    "past": {"past": 0.7, "wanted": 0.15, "had to": 0.15},
    "present": {"present": 0.4, "past": 0.35, "want": 0.1, "must": 0.1, "can": 0.05},
}
CONDITION_TENSES = {"present": 0.7, "can": 0.1, "want": 0.1, "must": 0.1}
CONJUNCTIONS = {("because", "weil"): 0.4, ("although", "obwohl"): 0.3, ("if", "wenn"): 0.3}


def draw_main(draw: Draw, tense: str = "", told_time: float = 0.45, rich: bool = True, no: bool = True) -> Clause:
    tense = tense or draw.weighted(TENSES)
    return draw_clause(draw, tense, draw_subject(draw, rich), told_time, no)


def draw_tenses(draw: Draw) -> tuple[Pair, str, str]:
    """A conjunction with tenses for the main clause and for its own."""
    conjunction = draw.weighted(CONJUNCTIONS)
    main = draw.weighted(TENSES)
    if conjunction[0] == "if":
        main = main if main in ("present", "will", "must", "can", "want") else "will"
        return conjunction, main, draw.weighted(CONDITION_TENSES)
    past = main in ("past", "wanted", "had to")
    return conjunction, main, draw.weighted(REASON_TENSES["past" if past else "present"])


def draw_subordinate(draw: Draw, tense: str, rich: bool = False) -> Clause:
    if tense in ("present", "past") and draw.chance(0.35):
        return draw_description(draw, tense)
    return draw_main(draw, tense, told_time=0.2, rich=rich)


def main_clause(draw: Draw, clause: Clause) -> Pair:
    """As a sentence of its own; a fronted time is fronted in both languages."""
    front = clause.time != NONE and draw.chance(0.5)
    return english_clause(clause, front), verb_second(clause, front)


DONE_TO_THINGS = [verb for verb in lexicon.VERBS if verb.frame == "acc" and "T" in verb.kinds and verb.extra != "state"]


def draw_referring(draw: Draw) -> tuple[Clause, Clause]:
    """ "he buys a lamp" and "it is cheap": the gender of the German pronoun is that of die Lampe."""
    subject, tense = draw_subject(draw, rich=False), draw.weighted(TENSES)
    verb = draw.pick(DONE_TO_THINGS)
    thing = draw_noun_phrase(draw, "T", subject.own)
    time = draw_time(draw, tense) if draw.chance(0.3) else NONE
    english = words(verb.en_particle, thing.en)
    main = Clause(subject, conjugate(verb, tense, subject.person), english, time, "", thing.german["acc"])
    pronoun = {"m": "er", "f": "sie", "n": "es", "p": "sie"}[thing.gender]
    referring = thing._replace(en="they" if thing.gender == "p" else "it", german={"nom": pronoun})
    past = tense in ("past", "wanted", "had to") and draw.chance(0.8)
    return main, draw_description(draw, "past" if past else "present", referring, known=thing.en)


def draw_matrix(draw: Draw) -> tuple[str, str, str]:
    """ "the woman hopes that": English, German with the subject first, and German with the verb first."""
    subject, verb = draw_subject(draw, rich=False), draw.pick(list(lexicon.MATRIX))
    base, third, conjunction, negation = lexicon.MATRIX[verb]
    finite, german = lexicon.FINITE[verb][subject.person], subject.german["nom"]
    english = words(subject.en, third if subject.person == "3s" else base)
    return (
        english,
        f"{words(german, finite, negation)}, {conjunction}",
        f"{words(finite, german, negation)}, {conjunction}",
    )
