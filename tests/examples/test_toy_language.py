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
    "det, adjectives, noun, count, english, german",  # nominative, accusative, dative
    [
        # weak endings, after der and dieser and jeder
        ("the", "old", "man", 1, "the old man", "der alte Mann/den alten Mann/dem alten Mann"),
        ("the", "young", "woman", 1, "the young woman", "die junge Frau/der jungen Frau"),
        ("the", "small", "child", 1, "the small child", "das kleine Kind/dem kleinen Kind"),
        ("the", "small", "child", "many", "the small children", "die kleinen Kinder/den kleinen Kindern"),
        ("this", "dark", "forest", 1, "this dark forest", "dieser dunkle Wald/diesen dunklen Wald/diesem dunklen Wald"),
        ("this", "new", "lamp", "many", "these new lamps", "diese neuen Lampen/diesen neuen Lampen"),
        ("every", "tired", "child", 1, "every tired child", "jedes müde Kind/jedem müden Kind"),
        # mixed endings, after ein and kein and possessives
        ("a", "red", "hat", 1, "a red hat", "ein roter Hut/einen roten Hut/einem roten Hut"),
        ("a", "expensive", "book", 1, "an expensive book", "ein teures Buch/einem teuren Buch"),
        ("a", "old", "clock", 1, "an old clock", "eine alte Uhr/einer alten Uhr"),
        ("no", "new", "chair", "many", "no new chairs", "keine neuen Stühle/keinen neuen Stühlen"),
        ("our", "small", "horse", 1, "our small horse", "unser kleines Pferd/unserem kleinen Pferd"),
        ("her", "tall", "brother", 1, "her tall brother", "ihr großer Bruder/ihren großen Bruder/ihrem großen Bruder"),
        ("his", "sick", "son", 3, "his three sick sons", "seine drei kranken Söhne/seinen drei kranken Söhnen"),
        # strong endings, after no article, a number or a genitive
        ("", "cold", "milk", 1, "cold milk", "kalte Milch/kalter Milch"),
        ("", "warm", "water", 1, "warm water", "warmes Wasser/warmem Wasser"),
        ("", "good", "coffee", 1, "good coffee", "guter Kaffee/guten Kaffee/gutem Kaffee"),
        ("", "old", "house", 23, "twenty-three old houses", "dreiundzwanzig alte Häuser/dreiundzwanzig alten Häusern"),
        ("", "old", "book", "43", "43 old books", "43 alte Bücher/43 alten Büchern"),
        ("a", "small red", "bag", "many", "small red bags", "kleine rote Taschen/kleinen roten Taschen"),
        ("Anna", "old", "brother", 1, "Anna's old brother", "Annas alter Bruder/Annas alten Bruder/Annas altem Bruder"),
        # dative plural without another n
        ("the", "quiet", "park", "many", "the quiet parks", "die ruhigen Parks/den ruhigen Parks"),
        ("the", "happy", "girl", "many", "the happy girls", "die glücklichen Mädchen/den glücklichen Mädchen"),
    ],
)
def test_noun_phrase(det, adjectives, noun, count, english, german):
    """One form for nominative and accusative where they are the same."""
    made, (nominative, *accusative, dative) = phrase(det, adjectives, noun, count), german.split("/")
    assert made.en == english and (made.german["nom"], made.german["dat"]) == (nominative, dative)
    assert made.german["acc"] == (accusative or [nominative])[0]


@pytest.mark.parametrize(
    "number, english, german",
    [
        (16, "sixteen", "sechzehn"),
        (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (30, "thirty", "dreißig"),
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
        ("an", "dat", "the", "", "beach", "am Strand"),
        ("an", "acc", "the", "", "dog", "an den Hund"),
        ("zu", "dat", "the", "new", "station", "zum neuen Bahnhof"),
        ("zu", "dat", "the", "", "school", "zur Schule"),
        ("von", "dat", "the", "", "market", "vom Markt"),
        ("aus", "dat", "the", "", "forest", "aus dem Wald"),
        ("durch", "acc", "the", "", "park", "durch den Park"),
        ("für", "acc", "my", "old", "uncle", "für meinen alten Onkel"),
        ("mit", "dat", "his", "", "sister", "mit seiner Schwester"),
    ],
)
def test_prepositions(preposition, case, det, adjectives, noun, german):
    assert prepositional(preposition, phrase(det, adjectives, noun), case) == german


SHE = Phrase("she", "her", {"nom": "sie", "acc": "sie", "dat": "ihr"}, "3s", "her", "f", light=True)


@pytest.mark.parametrize(
    "tense, english, question, finite, close, last",
    [
        ("present", "calls", "does she call", "ruft", "an", "anruft"),
        ("past", "called", "did she call", "hat", "angerufen", "angerufen hat"),
        ("must", "must call", "must she call", "muss", "anrufen", "anrufen muss"),
        ("will", "will call", "will she call", "wird", "anrufen", "anrufen wird"),
    ],
)
def test_the_places_of_a_separable_verb(tense, english, question, finite, close, last):
    verb, brother = conjugate(VERB["call"], tense, "3s"), phrase("her", "", "brother")
    clause = Clause(SHE, verb, brother.en, ("today", "heute"), "", brother.german["acc"])
    assert english_clause(clause) == f"she {english} her brother today"
    assert english_clause(clause, ask=True) == f"{question} her brother today"
    assert english_clause(clause, front_time=True) == f"today she {english} her brother"
    assert verb_second(clause) == f"sie {finite} heute ihren Bruder {close}"
    assert verb_second(clause, front_time=True) == f"heute {finite} sie ihren Bruder {close}"
    assert verb_first(clause) == f"{finite} sie heute ihren Bruder {close}"
    assert verb_final(clause) == f"sie heute ihren Bruder {last}"


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


@pytest.mark.parametrize("side", [0, 1])
def test_no_sentence_twice_in_or_across_splits(default, side):
    assert {split: len(pairs) for split, pairs in default.items()} == toy_language.SIZES
    assert len({pair[side] for pairs in default.values() for pair in pairs}) == sum(toy_language.SIZES.values())


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


def test_no_contraction_is_missed_and_no_article_is_wrong(default):
    english, german = (" ".join(pair[i].lower() for pairs in default.values() for pair in pairs) for i in (0, 1))
    assert not re.search(r"\b(in dem|an dem|von dem|zu dem|zu der|in das)\b", german)
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
        (["--test-long", "-3"], "--test-long is '-3', but must be a whole number, 1 or more"),
        (["--valid", "500001"], "--valid is 500001, but must be between 1 and 500000"),
        (["--seed", "-1"], "--seed is '-1', but must be a whole number, 0 or more"),
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
    sentence = "^--train 10 with --valid 1 with --test 1 is too much: 240 tries gave 1 distinct sentences, so ask"
    with pytest.raises(UserError, match=sentence):
        toy_language.write(str(tmp_path / "toy"), sizes={"train": 10, "valid": 1, "test": 1})
    assert not (tmp_path / "toy").exists()


def test_out_is_no_folder(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("kept")
    with pytest.raises(UserError, match="--out is .*taken, but must be a folder to write into"):
        toy_language.write(str(taken), sizes=SMALL)
    assert taken.read_text() == "kept"


def test_nothing_half_written(tmp_path):
    """A folder is in the way of the last file: none may have appeared, and no temporary one may stay."""
    (tmp_path / "test_long.de.partial").mkdir()
    with pytest.raises(UserError):
        toy_language.write(str(tmp_path), sizes=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["test_long.de.partial"]
