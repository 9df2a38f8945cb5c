"""The toy language pair: agreement and word order against forms worked out by hand, and its files."""

import hashlib
import re

import language as toy_language
import pytest
from lexicon import ADJECTIVE, NOUN, VERB
from phrases import (
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
    verb_first,
    verb_second,
)
from sentences import Draw

from gift_fairseq.errors import UserError

SMALL = {"train": 200, "valid": 20, "test": 20, "test_long": 20}
SMALL_SHA256 = "4eacd0c1fc7b812bfeb699141a57aee62a12fd952fa1ebc5a921e30ecc3f5a82"


@pytest.fixture(scope="module")
def default():
    return toy_language.generate()


def phrase(det, adjectives, noun, count=1):
    return noun_phrase(det, NOUN[noun], [ADJECTIVE[adjective] for adjective in adjectives.split()], count)


@pytest.mark.parametrize(
    "det, adjectives, noun, count, case, english, german",
    [
        # weak endings, after der and dieser and jeder
        ("the", "old", "man", 1, "nom", "the old man", "der alte Mann"),
        ("the", "old", "man", 1, "acc", "the old man", "den alten Mann"),
        ("the", "old", "man", 1, "dat", "the old man", "dem alten Mann"),
        ("the", "young", "woman", 1, "nom", "the young woman", "die junge Frau"),
        ("the", "young", "woman", 1, "acc", "the young woman", "die junge Frau"),
        ("the", "young", "woman", 1, "dat", "the young woman", "der jungen Frau"),
        ("the", "small", "child", 1, "nom", "the small child", "das kleine Kind"),
        ("the", "small", "child", 1, "acc", "the small child", "das kleine Kind"),
        ("the", "small", "child", 1, "dat", "the small child", "dem kleinen Kind"),
        ("the", "small", "child", "many", "acc", "the small children", "die kleinen Kinder"),
        ("the", "small", "child", "many", "dat", "the small children", "den kleinen Kindern"),
        ("this", "dark", "forest", 1, "acc", "this dark forest", "diesen dunklen Wald"),
        ("this", "new", "book", 1, "nom", "this new book", "dieses neue Buch"),
        ("this", "new", "lamp", "many", "nom", "these new lamps", "diese neuen Lampen"),
        ("every", "tired", "child", 1, "nom", "every tired child", "jedes müde Kind"),
        # mixed endings, after ein and kein and possessives
        ("a", "red", "hat", 1, "nom", "a red hat", "ein roter Hut"),
        ("a", "red", "hat", 1, "acc", "a red hat", "einen roten Hut"),
        ("a", "red", "hat", 1, "dat", "a red hat", "einem roten Hut"),
        ("a", "expensive", "book", 1, "acc", "an expensive book", "ein teures Buch"),
        ("a", "old", "clock", 1, "dat", "an old clock", "einer alten Uhr"),
        ("no", "big", "chair", 1, "acc", "no big chair", "keinen großen Stuhl"),
        ("no", "new", "chair", "many", "acc", "no new chairs", "keine neuen Stühle"),
        ("my", "old", "aunt", 1, "nom", "my old aunt", "meine alte Tante"),
        ("our", "small", "horse", 1, "nom", "our small horse", "unser kleines Pferd"),
        ("their", "friendly", "dog", "many", "dat", "their friendly dogs", "ihren freundlichen Hunden"),
        ("her", "tall", "brother", 1, "acc", "her tall brother", "ihren großen Bruder"),
        ("his", "sick", "daughter", 3, "dat", "his three sick daughters", "seinen drei kranken Töchtern"),
        # strong endings, after no article, a number or a genitive
        ("", "cold", "milk", 1, "acc", "cold milk", "kalte Milch"),
        ("", "warm", "water", 1, "dat", "warm water", "warmem Wasser"),
        ("", "good", "coffee", 1, "acc", "good coffee", "guten Kaffee"),
        ("", "good", "beer", 1, "nom", "good beer", "gutes Bier"),
        ("", "old", "house", 23, "acc", "twenty-three old houses", "dreiundzwanzig alte Häuser"),
        ("", "old", "house", 23, "dat", "twenty-three old houses", "dreiundzwanzig alten Häusern"),
        ("", "old", "book", "43", "acc", "43 old books", "43 alte Bücher"),
        ("a", "small red", "bag", "many", "dat", "small red bags", "kleinen roten Taschen"),
        ("Anna", "old", "brother", 1, "nom", "Anna's old brother", "Annas alter Bruder"),
        ("Anna", "old", "brother", 1, "dat", "Anna's old brother", "Annas altem Bruder"),
        # dative plural without another n
        ("the", "quiet", "park", "many", "dat", "the quiet parks", "den ruhigen Parks"),
        ("the", "happy", "girl", "many", "dat", "the happy girls", "den glücklichen Mädchen"),
    ],
)
def test_noun_phrase(det, adjectives, noun, count, case, english, german):
    made = phrase(det, adjectives, noun, count)
    assert (made.en, made.german[case]) == (english, german)


@pytest.mark.parametrize(
    "number, english, german",
    [
        (2, "two", "zwei"),
        (16, "sixteen", "sechzehn"),
        (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (30, "thirty", "dreißig"),
        (37, "thirty-seven", "siebenunddreißig"),
        (66, "sixty-six", "sechsundsechzig"),
        (70, "seventy", "siebzig"),
        (100, "one hundred", "einhundert"),
        (101, "one hundred and one", "einhunderteins"),
        (112, "one hundred and twelve", "einhundertzwölf"),
        (137, "one hundred and thirty-seven", "einhundertsiebenunddreißig"),
    ],
)
def test_numbers(number, english, german):
    assert (english_number(number), german_number(number)) == (english, german)


@pytest.mark.parametrize(
    "preposition, case, det, adjectives, noun, german",
    [
        ("in", "dat", "the", "", "garden", "im Garten"),
        ("in", "dat", "the", "old", "kitchen", "in der alten Küche"),
        ("in", "acc", "the", "dark", "forest", "in den dunklen Wald"),
        ("in", "acc", "the", "old", "house", "ins alte Haus"),
        ("in", "dat", "a", "small", "village", "in einem kleinen Dorf"),
        ("in", "dat", "this", "", "room", "in diesem Zimmer"),
        ("an", "dat", "the", "", "beach", "am Strand"),
        ("an", "acc", "the", "", "dog", "an den Hund"),
        ("zu", "dat", "the", "new", "station", "zum neuen Bahnhof"),
        ("zu", "dat", "the", "", "school", "zur Schule"),
        ("von", "dat", "the", "", "market", "vom Markt"),
        ("aus", "dat", "the", "", "forest", "aus dem Wald"),
        ("auf", "dat", "the", "", "market", "auf dem Markt"),
        ("durch", "acc", "the", "", "park", "durch den Park"),
        ("für", "acc", "my", "old", "uncle", "für meinen alten Onkel"),
        ("mit", "dat", "his", "", "sister", "mit seiner Schwester"),
    ],
)
def test_prepositions(preposition, case, det, adjectives, noun, german):
    assert prepositional(preposition, phrase(det, adjectives, noun), case) == german


SHE = Phrase("she", "her", {"nom": "sie", "acc": "sie", "dat": "ihr"}, "3s", "her", "f", light=True)


@pytest.mark.parametrize(
    "tense, english, question, second, first, final",
    [
        (
            "present",
            "she calls her brother today",
            "does she call her brother today",
            "sie ruft heute ihren Bruder an",
            "ruft sie heute ihren Bruder an",
            "sie heute ihren Bruder anruft",
        ),
        (
            "past",
            "she called her brother today",
            "did she call her brother today",
            "sie hat heute ihren Bruder angerufen",
            "hat sie heute ihren Bruder angerufen",
            "sie heute ihren Bruder angerufen hat",
        ),
        (
            "must",
            "she must call her brother today",
            "must she call her brother today",
            "sie muss heute ihren Bruder anrufen",
            "muss sie heute ihren Bruder anrufen",
            "sie heute ihren Bruder anrufen muss",
        ),
        (
            "will",
            "she will call her brother today",
            "will she call her brother today",
            "sie wird heute ihren Bruder anrufen",
            "wird sie heute ihren Bruder anrufen",
            "sie heute ihren Bruder anrufen wird",
        ),
    ],
)
def test_the_places_of_a_separable_verb(tense, english, question, second, first, final):
    verb, brother = conjugate(VERB["call"], tense, "3s"), phrase("her", "", "brother")
    clause = Clause(SHE, verb, brother.en, ("today", "heute"), "", brother.german["acc"])
    assert english_clause(clause) == english
    assert english_clause(clause, ask=True) == question
    assert english_clause(clause, front_time=True) == f"today {english.removesuffix(' today')}"
    assert verb_second(clause) == second
    assert verb_second(clause, front_time=True) == f"heute {first.replace(' heute', '')}"
    assert verb_first(clause) == first
    assert verb_final(clause) == final


@pytest.mark.parametrize(
    "verb, tense, person, finite, close, final",
    [
        ("take along", "present", "1s", "nehme", "mit", "mitnehme"),
        ("take along", "present", "3s", "nimmt", "mit", "mitnimmt"),
        ("invite", "present", "3p", "laden", "ein", "einladen"),
        ("come back", "past", "1s", "bin", "zurückgekommen", "zurückgekommen bin"),
        ("fall asleep", "past", "3p", "sind", "eingeschlafen", "eingeschlafen sind"),
        ("follow", "past", "3s", "ist", "gefolgt", "gefolgt ist"),
        ("sell", "past", "1p", "haben", "verkauft", "verkauft haben"),
        ("help", "want", "3s", "will", "helfen", "helfen will"),
        ("help", "had to", "1p", "mussten", "helfen", "helfen mussten"),
        ("go", "may", "1s", "darf", "gehen", "gehen darf"),
    ],
)
def test_verbs(verb, tense, person, finite, close, final):
    assert conjugate(VERB[verb], tense, person)[:3] == (finite, close, final)


def test_the_copula_is_in_the_preterite():
    assert be("past", "3p")[:4] == ("waren", "", "waren", "were")
    assert be("present", "1s")[:4] == ("bin", "", "bin", "am")


def test_commas_around_a_relative_clause_do_not_double():
    assert toy_language.finish("heute tanzt die Frau, die arbeitet,") == "Heute tanzt die Frau, die arbeitet."
    assert toy_language.finish("tanzt die Frau, die arbeitet,?") == "Tanzt die Frau, die arbeitet?"
    assert toy_language.finish("es tanzt, die arbeitet,, weil") == "Es tanzt, die arbeitet, weil."


def digest(splits):
    lines = [f"{split}\t{en}\t{de}\n" for split, pairs in splits.items() for en, de in pairs]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_seed_gives_the_same_sentences_everywhere():
    assert digest(toy_language.generate(sizes=SMALL)) == SMALL_SHA256
    assert digest(toy_language.generate(1, SMALL)) == SMALL_SHA256
    assert digest(toy_language.generate(2, SMALL)) != SMALL_SHA256


def test_test_and_valid_do_not_depend_on_how_large_train_is():
    one, other = (toy_language.generate(3, {**SMALL, "train": train}) for train in (50, 100))
    assert one["test"] == other["test"] and one["valid"] == other["valid"]
    assert one["train"] == other["train"][:50]


def test_sizes(default):
    assert {split: len(pairs) for split, pairs in default.items()} == toy_language.SIZES
    assert len(default["train"]) >= 20000


@pytest.mark.parametrize("side", [0, 1])
def test_no_sentence_twice_in_or_across_splits(default, side):
    sentences = [pair[side] for pairs in default.values() for pair in pairs]
    assert len(set(sentences)) == len(sentences)


def test_an_english_sentence_has_one_german_one():
    """Among raw draws, for the splits hold no English sentence twice; the shortest ones do come again."""
    draw, german, again = Draw(5), {}, 0
    for _ in range(20000):
        draw.used.clear()
        english, translation = toy_language.simple_sentence(draw)
        again += english in german
        assert german.setdefault(english, translation) == translation
    assert again > 50


@pytest.mark.parametrize("side", [0, 1])
def test_lengths(default, side):
    lengths = {split: [len(pair[side].split()) for pair in pairs] for split, pairs in default.items()}
    assert min(lengths["train"]) == 5 and max(lengths["train"]) == 18
    assert 10 <= sum(lengths["train"]) / len(lengths["train"]) <= 11.5
    assert min(lengths["test_long"]) > max(lengths["train"] + lengths["valid"] + lengths["test"])


def test_orthography(default):
    for pairs in default.values():
        for sentence in (side for pair in pairs for side in pair):
            assert re.fullmatch(r"[A-Z0-9][A-Za-zÄÖÜäöüß0-9,' -]+[.?]", sentence), sentence
            assert not re.search(r"  | ,|,,|,[^ ]|-[^a-z]", sentence), sentence


def test_no_contraction_is_missed(default):
    german = " ".join(pair[1].lower() for pairs in default.values() for pair in pairs)
    assert not re.search(r"\b(in dem|an dem|von dem|zu dem|zu der|in das)\b", german)


def test_english_articles(default):
    english = " ".join(pair[0].lower() for pairs in default.values() for pair in pairs)
    assert not re.search(r"\ban? (\w*\d|[a-z]+-)|\ba [aeiou]|\ban [^aeiou]", english)


def test_files(tmp_path, capsys):
    out = tmp_path / "new" / "toy"
    sizes = [f"{toy_language._option(split)}={size}" for split, size in SMALL.items()]
    toy_language.main(["--out", str(out), *sizes])
    assert "train (200 pairs)" in capsys.readouterr().out
    expected = toy_language.generate(sizes=SMALL)
    names = {f"{split}.{language}" for split in SMALL for language in ("en", "de")}
    assert {path.name for path in out.iterdir()} == names
    for split, pairs in expected.items():
        assert (out / f"{split}.en").read_bytes().decode() == "".join(f"{en}\n" for en, _ in pairs)
        assert (out / f"{split}.de").read_bytes().decode() == "".join(f"{de}\n" for _, de in pairs)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--train", "0"], "--train is '0', but must be a whole number, 1 or more"),
        (["--test-long", "-3"], "--test-long is '-3', but must be a whole number, 1 or more"),
        (["--valid", "500001"], "--valid is 500001, but must be between 1 and 500000"),
        (["--test", "many"], "--test is 'many', but must be a whole number, 1 or more"),
        (["--seed", "-1"], "--seed is '-1', but must be a whole number, 0 or more"),
        (["--seed", "1.5"], "--seed is '1.5', but must be a whole number, 0 or more"),
        (["--sed", "1"], "unrecognized arguments: --sed 1"),
    ],
)
def test_a_bad_value_ends_in_one_sentence(tmp_path, arguments, sentence):
    out = tmp_path / "toy"
    with pytest.raises(SystemExit) as stop:
        toy_language.main(["--out", str(out), *arguments])
    assert stop.value.code.split(";")[0] == f"language.py: error: {sentence}"
    assert not out.exists()


def test_more_than_the_grammar_yields(tmp_path, monkeypatch):
    """One sentence only, in place of a grammar: the second is never found."""
    monkeypatch.setattr(toy_language, "SHORT", {lambda draw: ("a b c d e", "f g h i j"): 1.0})
    with pytest.raises(UserError) as stop:
        toy_language.write(str(tmp_path / "toy"), sizes={"train": 10, "valid": 1, "test": 1})
    assert str(stop.value) == (
        "--train 10 with --valid 1 with --test 1 is too much: 240 tries gave 1 distinct sentences, so ask for less"
    )
    assert not (tmp_path / "toy").exists()


def test_out_is_no_folder(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("kept")
    with pytest.raises(UserError) as stop:
        toy_language.write(str(taken), sizes=SMALL)
    assert f"--out is {taken}, but must be a folder to write into" in str(stop.value)
    assert taken.read_text() == "kept"


def test_nothing_half_written(tmp_path):
    """A folder is in the way of the last file: none may have appeared, and no temporary one may stay."""
    (tmp_path / "test_long.de.partial").mkdir()
    with pytest.raises(UserError):
        toy_language.write(str(tmp_path), sizes=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["test_long.de.partial"]
