"""Lines of text to draw: common words, made-up ones, numbers and marks.

Every word of three characters or more is of one side, to train on or to test on, by its
letters alone.
"""

import re
import unicodedata
import zlib

import numpy as np

from lstm_jax.data.synthetic.fonts import LATIN, SYMBOLS

LENGTHS = (4, 33)  # characters of a line, at most so many
# Arrays, since a draw out of a list would turn it into one each time.
_SIGNS = np.array(list(SYMBOLS[1:]))
_MARKS = np.array(list(SYMBOLS[1:16] + SYMBOLS[26:33] + SYMBOLS[59:65] + SYMBOLS[91:]))
_PAIRS = np.array(["()", "[]", '""', "''", "{}", "<>", "**", "--"])
_ENDS = np.array(list(",.;:!?-"))
_ONSETS = np.array(
    "b c ch d f g h j k l m n p pl qu r s sh st t th tr v w x y z".split()
)
_VOWELS = np.array("a e i o u ea ou ie".split())
_CODAS = np.array(["", "", "n", "r", "s", "t", "l", "nd", "m", "ck", "ng"])
_LIGATURES = {"æ": "a", "œ": "o", "ø": "o", "ß": "s", "Æ": "A", "Œ": "O", "Ø": "O"}
_ACCENTED = {
    letter: unicodedata.normalize("NFD", letter)[0]
    for letter in LATIN
    if letter.isalpha() and letter not in _LIGATURES
}
_LIKE: dict[str, list[str]] = {}  # by the letter that they come from
for _letter, _plain in (_ACCENTED | _LIGATURES).items():
    _LIKE.setdefault(_plain, []).append(_letter)
_PRINTED = dict(zip("<>$#^`", "«»£§°€", strict=True))
_COMMON = np.array(
    """
a able about above across act action add after again against age ago air all almost
alone along already also although always am among an and animal another answer any
appear are area arm army around art as ask at away baby back bad ball bank base be bear
beautiful became because become bed been before began begin behind being believe below
best better between big bird black blood blue board boat body book born both bottom box
boy bread break bring brother brought brown build built burn business but buy by call
came can cannot captain car card care carry case cat catch cause cell center century
certain chair chance change chapter check chief child children church circle city class
clean clear close cloth cloud coast cold color come common company complete condition
consider contain continue control cook cool copy corn corner cost could count country
course court cover cried cross cry current cut dance dark daughter day dead deal dear
death decide deep degree desert design determine develop did die different difficult
dinner direct discover distance divide do doctor does dog dollar done door doubt down
draw dream dress drink drive dry during each early earth east easy eat edge effect egg
eight either electric else end enemy energy engine enough enter equal even evening ever
every example except expect experience explain eye face fact fall family famous far farm
fast father fear feel feet fell felt few field fifteen fifty fight figure fill final
find fine finger finish fire first fish fit five floor flow flower fly follow food foot
for force foreign forest form former forward found four free fresh friend from front
fruit full game garden gas gave general gentle get girl give glass go gold gone good got
govern government grass great green grew ground group grow guess had hair half hand
happen happy hard has hat have he head hear heart heat heavy held help her here high
hill him himself his history hold hole home hope horse hot hour house how however human
hundred hunt husband ice idea if important in inch include increase indeed industry
insect instead interest into iron is island it its itself job join judge jump just keep
kept key kill kind king knew know known labor lady lake land language large last late
later laugh law lay lead learn least leave led left leg length less let letter level lie
life light like likely line liquid list listen little live local long look lord lost lot
loud love low machine made main major make man many map march mark market master match
material matter may me mean measure meat meet member men metal method middle might mile
milk million mind mine minute miss modern moment money month moon more morning most
mother motion mountain mouth move much multiply music must my name nation natural nature
near necessary neck need neighbor neither never new next night nine no noise none noon
nor north nose not note nothing notice noun now number object observe ocean of off offer
office often oh oil old on once one only open operate opinion or order other our out
over own oxygen page pain paint pair paper paragraph parent part particular party pass
past path pattern pay peace people perhaps period person picture piece place plain plan
plane planet plant play please point poor population position possible pound power
practice prepare present president press pretty price problem process produce product
program promise proper property prove provide public pull purpose push put quart queen
question quick quiet quite race radio rail rain raise ran rather reach read ready real
reason receive record red region remain remember repeat reply report represent require
rest result return rich ride right ring rise river road rock roll room root rope rose
round row rule run safe said sail salt same sand sat save saw say scale school science
sea season seat second see seed seem seen select self sell send sense sent sentence
separate serve service set settle seven several shall shape share sharp she sheet ship
shoe shop shore short should shoulder shout show side sight sign silent silver similar
simple since sing sister sit six size skin sky sleep slow small smell smile snow so
social society soft soil soldier some son song soon sound south space speak special
speech speed spell spent spoke spot spread spring square stand star start state station
stay steam steel step stick still stone stood stop store story straight strange street
strong student study subject substance success such sudden sugar suggest suit summer sun
supply support suppose sure surface surprise swim system table tail take talk tall teach
teacher team tell temperature ten term test than thank that the their them then there
these they thick thin thing think third this those though thought thousand three through
throw thus tie till time to together told tone too took top total touch toward town
track trade train travel tree triangle trip trouble truck true trust try turn twelve
twenty two type under understand unit until up upon us use usual valley value various
verb very view village visit voice vote vowel wait walk wall want war warm was wash
watch water wave way we wear weather week weight well went were west what wheel when
where whether which while white who whole whom whose why wide wife wild will win wind
window winter wire wish with within without woman women wonder wood word work world
would write written wrong yard year yellow yes yet you young your
""".split()
)


def line_text(rng: np.random.Generator, split: str) -> str:
    """A line of words, numbers and marks; "train" has others than all other splits."""
    most = int(rng.integers(*LENGTHS))
    text, failed = _token(rng, split), 0
    while failed < 3:
        longer = f"{text} {_token(rng, split)}"
        if len(longer) <= most:
            text = longer
        else:
            failed += 1
    return text


def as_printed(text: str, rng: np.random.Generator) -> str:
    """The line with letters of other languages, and quotes and dashes of a printer.

    Words are joined, too, as in don't and in twenty-one.
    """
    odds, curly = rng.choice([0.0, 0.08, 0.3]), rng.random() < 0.5
    found = []
    for k, character in enumerate(text):
        if character == " " and rng.random() < 0.08:
            inside = text[k - 1].isalpha() and text[k + 1].isalpha()
            character = "'-"[int(rng.random() < 0.3)] if inside else " "
        others = _LIKE.get(character)
        if others and rng.random() < odds:
            character = others[int(rng.integers(len(others)))]
        elif curly and character in "'\"":
            opens = k == 0 or text[k - 1] in " ([<{"
            single = ("\u2019", "\u2018")[opens]
            double = ("\u201d", "\u201c\u201e"[int(rng.random() < 0.3)])[opens]
            character = single if character == "'" else double
        elif curly and character == "-" and rng.random() < 0.3:
            character = "\u2013\u2014"[int(rng.integers(2))]
        elif curly and character in _PRINTED and rng.random() < 0.5:
            character = _PRINTED[character]
        found.append(character)
    if odds and rng.random() < 0.05:
        return "¡¿"[int(rng.integers(2))] + "".join(found)
    return "".join(found)


def _token(rng: np.random.Generator, split: str) -> str:
    while True:
        token = _draw_token(rng)
        word = re.sub(r"\W", "", token).lower()
        if len(word) < 3 or is_for_test(word) == (split != "train"):
            return token


def is_for_test(word: str) -> bool:
    """Which side a word of lower case is of; one of five is for tests."""
    return zlib.crc32(word.encode()) % 5 == 0


def _draw_token(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.03:
        return "".join(rng.choice(_SIGNS, rng.integers(1, 6)))
    if kind < 0.16:
        return _number(rng)
    if kind < 0.50:
        word = str(rng.choice(_COMMON))
    else:
        word = "".join(
            str(rng.choice(part))
            for _ in range(int(rng.integers(1, 4)))
            for part in (_ONSETS, _VOWELS, _CODAS)
        )
    case, mark = rng.random(), rng.random()
    word = word.upper() if case < 0.12 else word.capitalize() if case < 0.36 else word
    if mark < 0.08:
        return word + str(rng.choice(_ENDS))
    if mark < 0.12:
        opens, closes = rng.choice(_PAIRS)
        return opens + word + closes
    if mark < 0.17:
        return word + str(rng.choice(_MARKS))
    return str(rng.choice(_MARKS)) + word if mark < 0.19 else word


def _number(rng: np.random.Generator) -> str:
    number = str(rng.integers(10 ** int(rng.integers(1, 6))))
    at = int(rng.integers(1, len(number) + 1))
    mark = str(rng.choice(["", "", ".", ",", ":", "/", "-"]))
    number = number[:at] + mark + number[at:] if at < len(number) else number
    around = rng.random()
    if around < 0.2:
        return str(rng.choice(["$", "#", "+", "-", "~", "@", "("])) + number
    return number + str(rng.choice(list("%.,;:)*"))) if around < 0.4 else number
