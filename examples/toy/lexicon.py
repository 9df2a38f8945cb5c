"""Words of the toy English-German pair: plain tables, one word a line, read once at import.

Left out on purpose: weak nouns (der Junge, den Jungen), English verbs whose past looks like their present
(read, put), and words of which English has one and German two (friend). So an English sentence tells all.
"""

from __future__ import annotations

from typing import NamedTuple


class Noun(NamedTuple):
    """``kind``: Person, Kin, Animal, Thing, Mass (no plural), pLace, place at Home; ``gender``: m, f or n."""

    en: str
    en_plural: str
    de: str
    de_plural: str
    gender: str
    kind: str


class Adjective(NamedTuple):
    """``de`` stands after a verb (teuer), ``stem`` takes endings (teur-es); ``kinds`` of nouns it suits."""

    en: str
    de: str
    stem: str
    kinds: str


class Verb(NamedTuple):
    """Principal parts of both languages. ``particle`` is what German separates ("an" of anrufen), or empty.

    ``frame`` says what the verb takes: ``acc``, ``dat``, ``dat+acc``, a German preposition with its case
    (``auf+acc``), ``to``/``from``/``where`` (a place) or ``none``; ``kinds`` of nouns that its object may be.
    ``extra``: ``for`` (a person), ``with`` (company), ``at`` (a place), ``state`` (no time is told).
    """

    en: str
    en_third: str
    en_past: str
    en_particle: str
    infinitive: str
    third: str
    particle: str
    participle: str
    auxiliary: str
    frame: str
    kinds: str
    extra: str


def _rows(table: str) -> list[list[str]]:
    """Words of each line; a lone hyphen means nothing, and an underscore stands for a blank within a word."""
    lines = [line.replace("|", " ").split() for line in table.strip().splitlines()]
    return [["" if word == "-" else word.replace("_", " ") for word in line] for line in lines]


NOUNS = [
    Noun(*row)
    for row in _rows("""
man men             Mann Männer              m P
woman women         Frau Frauen              f P
child children      Kind Kinder              n P
girl girls          Mädchen Mädchen          n P
king kings          König Könige             m P
queen queens        Königin Königinnen       f P
waiter waiters      Kellner Kellner          m P
waitress waitresses Kellnerin Kellnerinnen   f P
brother brothers    Bruder Brüder            m K
sister sisters      Schwester Schwestern     f K
uncle uncles        Onkel Onkel              m K
aunt aunts          Tante Tanten             f K
son sons            Sohn Söhne               m K
daughter daughters  Tochter Töchter          f K
dog dogs            Hund Hunde               m A
cat cats            Katze Katzen             f A
horse horses        Pferd Pferde             n A
hat hats            Hut Hüte                 m T
coat coats          Mantel Mäntel            m T
chair chairs        Stuhl Stühle             m T
umbrella umbrellas  Regenschirm Regenschirme m T
key keys            Schlüssel Schlüssel      m T
lamp lamps          Lampe Lampen             f T
cup cups            Tasse Tassen             f T
clock clocks        Uhr Uhren                f T
bag bags            Tasche Taschen           f T
book books          Buch Bücher              n T
picture pictures    Bild Bilder              n T
shirt shirts        Hemd Hemden              n T
bicycle bicycles    Fahrrad Fahrräder        n T
knife knives        Messer Messer            n T
tea -               Tee -                    m M
coffee -            Kaffee -                 m M
milk -              Milch -                  f M
water -             Wasser -                 n M
beer -              Bier -                   n M
garden gardens      Garten Gärten            m H
kitchen kitchens    Küche Küchen             f H
house houses        Haus Häuser              n H
room rooms          Zimmer Zimmer            n H
park parks          Park Parks               m L
forest forests      Wald Wälder              m L
market markets      Markt Märkte             m L
station stations    Bahnhof Bahnhöfe         m L
beach beaches       Strand Strände           m L
city cities         Stadt Städte             f L
church churches     Kirche Kirchen           f L
school schools      Schule Schulen           f L
bridge bridges      Brücke Brücken           f L
village villages    Dorf Dörfer              n L
""")
]
NOUN = {noun.en: noun for noun in NOUNS}

ADJECTIVES = [
    Adjective(*row)
    for row in _rows("""
old       alt        alt        PKATLH
young     jung       jung       PKA
tall      groß       groß       PK
small     klein      klein      PKATLH
big       groß       groß       ATLH
friendly  freundlich freundlich PKA
tired     müde       müd        PKA
happy     glücklich  glücklich  PK
sick      krank      krank      PKA
new       neu        neu        TLH
expensive teuer      teur       TM
cheap     billig     billig     TM
beautiful schön      schön      TLH
dark      dunkel     dunkl      LH
quiet     ruhig      ruhig      LH
cold      kalt       kalt       M
warm      warm       warm       M
good      gut        gut        M
red       rot        rot        T
green     grün       grün       T
blue      blau       blau       T
""")
]
ADJECTIVE = {adjective.en: adjective for adjective in ADJECTIVES}
CONTRARY = [
    set(row)
    for row in _rows("""
old new
old young
small big tall
expensive cheap
red green blue
cold warm
happy sick
""")
]
COLOURS = [ADJECTIVE[colour] for colour in ("red", "green", "blue")]

VERBS = [
    Verb(*row)
    for row in _rows("""
call calls called -                       | rufen ruft an angerufen haben             | acc PK at
invite invites invited -                  | laden lädt ein eingeladen haben           | acc PK -
pick picks picked up                      | holen holt ab abgeholt haben              | acc PK at
take takes took along                     | nehmen nimmt mit mitgenommen haben        | acc PKAT -
bring brings brought back                 | bringen bringt zurück zurückgebracht haben| acc AT -
throw throws threw away                   | werfen wirft weg weggeworfen haben        | acc T -
choose chooses chose -                    | wählen wählt aus ausgewählt haben         | acc T for
look_at looks_at looked_at -              | schauen schaut an angeschaut haben        | acc PKATLH -
listen_to listens_to listened_to -        | hören hört zu zugehört haben              | dat PK at
watch watches watched -                   | schauen schaut zu zugeschaut haben        | dat PKA at
help helps helped -                       | helfen hilft - geholfen haben             | dat PK at
thank thanks thanked -                    | danken dankt - gedankt haben              | dat PK -
answer answers answered -                 | antworten antwortet - geantwortet haben   | dat PK -
follow follows followed -                 | folgen folgt - gefolgt sein               | dat PKA -
buy buys bought -                         | kaufen kauft - gekauft haben              | acc TM for
sell sells sold -                         | verkaufen verkauft - verkauft haben       | acc TM at
find finds found -                        | finden findet - gefunden haben            | acc AT at
see sees saw -                            | sehen sieht - gesehen haben               | acc PKATLH at
look_for looks_for looked_for -           | suchen sucht - gesucht haben              | acc PKAT at
visit visits visited -                    | besuchen besucht - besucht haben          | acc PKL -
need needs needed -                       | brauchen braucht - gebraucht haben        | acc TM state
paint paints painted -                    | malen malt - gemalt haben                 | acc PKATLH at
carry carries carried -                   | tragen trägt - getragen haben             | acc T -
repair repairs repaired -                 | reparieren repariert - repariert haben    | acc T at
drink drinks drank -                      | trinken trinkt - getrunken haben          | acc M at
give gives gave -                         | geben gibt - gegeben haben                | dat+acc T at
show shows showed -                       | zeigen zeigt - gezeigt haben              | dat+acc T at
send sends sent -                         | schicken schickt - geschickt haben        | dat+acc T -
wait_for waits_for waited_for -           | warten wartet - gewartet haben            | auf+acc PK at
think_of thinks_of thought_of -           | denken denkt - gedacht haben              | an+acc PKAT -
laugh_at laughs_at laughed_at -           | lachen lacht - gelacht haben              | über+acc PK at
talk_to talks_to talked_to -              | sprechen spricht - gesprochen haben       | mit+dat PK at
play_with plays_with played_with -        | spielen spielt - gespielt haben           | mit+dat PKA at
dream_of dreams_of dreamed_of -           | träumen träumt - geträumt haben           | von+dat PKATLH -
go goes went -                            | gehen geht - gegangen sein                | to - with
run runs ran -                            | laufen läuft - gelaufen sein              | to - with
come_back comes_back came_back -          | kommen kommt zurück zurückgekommen sein   | from - with
arrive arrives arrived -                  | kommen kommt an angekommen sein           | where - with
live lives lived -                        | wohnen wohnt - gewohnt haben              | where - state
work works worked -                       | arbeiten arbeitet - gearbeitet haben      | none - at
dance dances danced -                     | tanzen tanzt - getanzt haben              | none - at
sleep sleeps slept -                      | schlafen schläft - geschlafen haben       | none - at
fall_asleep falls_asleep fell_asleep -    | schlafen schläft ein eingeschlafen sein   | none - at
get_up gets_up got_up -                   | stehen steht auf aufgestanden sein        | none - -
""")
]
VERB = {f"{verb.en} {verb.en_particle}".strip(): verb for verb in VERBS}

# What leads to a place, each as English preposition, German preposition and the case that it governs here:
# where one is (dative), where one goes (mostly accusative), and where one comes from (dative).
_IN = ("in", "in", "dat")
_BESIDE = [("behind", "hinter", "dat"), ("in front of", "vor", "dat"), ("next to", "neben", "dat")]
_INTO = ("into", "in", "acc")
_TO = ("to", "zu", "dat")
_THROUGH = ("through", "durch", "acc")
_AROUND = ("around", "um", "acc")
_OUT = [("from", "aus", "dat")]
_OFF = [("from", "von", "dat")]
PLACES = {
    "garden": {"where": [_IN], "to": [_INTO, _THROUGH], "from": _OUT},
    "kitchen": {"where": [_IN], "to": [_INTO], "from": _OUT},
    "house": {"where": [_IN, *_BESIDE], "to": [_INTO, _AROUND], "from": _OUT},
    "room": {"where": [_IN], "to": [_INTO, _THROUGH], "from": _OUT},
    "park": {"where": [_IN], "to": [_INTO, _THROUGH], "from": _OUT},
    "forest": {"where": [_IN], "to": [_INTO, _THROUGH], "from": _OUT},
    "market": {"where": [("at", "auf", "dat")], "to": [_TO], "from": _OFF},
    "station": {"where": [("at", "an", "dat"), *_BESIDE], "to": [_TO], "from": _OFF},
    "beach": {"where": [("at", "an", "dat")], "to": [_TO], "from": _OFF},
    "city": {"where": [_IN], "to": [_INTO, _THROUGH], "from": _OUT},
    "church": {"where": [_IN, *_BESIDE], "to": [_TO, _INTO, _AROUND], "from": _OUT},
    "school": {"where": [_IN, *_BESIDE], "to": [_TO], "from": _OUT},
    "bridge": {
        "where": [("on", "auf", "dat"), ("under", "unter", "dat")],
        "to": [_TO, ("over", "über", "acc")],
        "from": _OFF,
    },
    "village": {"where": [_IN], "to": [_INTO, _THROUGH], "from": _OUT},
}

NAMES = {  # with gender; none ends in an s sound, for the genitive takes a plain s: Annas Bruder
    "Anna": "f",
    "Clara": "f",
    "Emma": "f",
    "Julia": "f",
    "Lena": "f",
    "Maria": "f",
    "Karl": "m",
    "Leon": "m",
    "Otto": "m",
    "Paul": "m",
    "Peter": "m",
    "Tom": "m",
}

# Pronouns: English subject and object, German nominative, accusative and dative, person, possessive.
PRONOUNS = _rows("""
he   him  er  ihn  ihm   3s his
she  her  sie sie  ihr   3s her
they them sie sie  ihnen 3p their
I    me   ich mich mir   1s my
we   us   wir uns  uns   1p our
""")
POSSESSIVES = {"my": "mein", "our": "unser", "his": "sein", "her": "ihr", "their": "ihr"}

# German finite forms for ich, for er/sie/es, and for wir and sie.
FINITE = {
    row[0]: {"1s": row[1], "3s": row[2], "1p": row[3], "3p": row[3]}
    for row in _rows("""
haben  habe   hat    haben
sein   bin    ist    sind
war    war    war    waren
will   werde  wird   werden
can    kann   kann   können
must   muss   muss   müssen
want   will   will   wollen
may    darf   darf   dürfen
wanted wollte wollte wollten
had_to musste musste mussten
say    sage   sagt   sagen
know   weiß   weiß   wissen
hope   hoffe  hofft  hoffen
believe glaube glaubt glauben
ask    frage  fragt  fragen
not_know weiß weiß   wissen
""")
}
MATRIX = {  # English plural and singular of the verb, German conjunction, and the German negation
    "say": ("say that", "says that", "dass", ""),
    "know": ("know that", "knows that", "dass", ""),
    "hope": ("hope that", "hopes that", "dass", ""),
    "believe": ("believe that", "believes that", "dass", ""),
    "ask": ("ask whether", "asks whether", "ob", ""),
    "not know": ("do not know whether", "does not know whether", "ob", "nicht"),
}

_ANY = [("today", "heute")]
_DAYS = "Monday Montag|Tuesday Dienstag|Wednesday Mittwoch|Thursday Donnerstag|Friday Freitag".split("|")
_ON = [(f"on {en}", f"am {de}") for en, de in map(str.split, _DAYS)]
TIMES = {
    "present": _ANY
    + [("every day", "jeden Tag"), ("every morning", "jeden Morgen"), ("every evening", "jeden Abend")]
    + [("every week", "jede Woche"), ("every year", "jedes Jahr"), ("on Sundays", "sonntags")]
    + [("in summer", "im Sommer"), ("in winter", "im Winter")],
    "past": _ANY
    + _ON
    + [("yesterday", "gestern"), ("last week", "letzte Woche"), ("last year", "letztes Jahr")]
    + [("this morning", "heute Morgen"), ("yesterday evening", "gestern Abend")],
    "future": _ANY
    + _ON
    + [("tomorrow", "morgen"), ("next week", "nächste Woche"), ("next year", "nächstes Jahr")]
    + [("this evening", "heute Abend"), ("soon", "bald")],
}
UNITS = [("days", "Tagen"), ("weeks", "Wochen"), ("months", "Monaten"), ("years", "Jahren")]  # dative
