"""ASCII for letters of other scripts, as the sanitiser of names (a crate `slugify` over `unidecode`) has it.

Latin as Europe writes it, Greek, Russian, kana and Hangul are as there. Of the ideographs here are a few that names
of tables use; whoever asks for another one is told so, instead of being given a wrong name.
"""

import unicodedata

_LATIN = {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "đ": "d", "Đ": "D", "ð": "d",
          "Ð": "D", "ł": "l", "Ł": "L", "þ": "th", "Þ": "Th", "ı": "i", "ħ": "h", "Ħ": "H", "ŋ": "ng", "Ŋ": "NG",
          "ŧ": "t", "Ŧ": "T", "ĸ": "k", "ſ": "s", "ŉ": "'n"}
_GREEK = dict(zip("αβγδεζηθικλμνξοπρςστυφχψω",
                  "a b g d e z e th i k l m n x o p r s s t u ph kh ps o".split()), Ξ="KS")
_CYRILLIC = dict(zip("абвгдежзийклмнопрстуфхцчшщыьэюяё",
                     "a b v g d e zh z i i k l m n o p r s t u f kh ts ch sh shch y ' e iu ia io".split()), ъ="")
_IDEOGRAPHS = {
    char: reading + " " for reading, chars in {
        "Ri": "日", "Ben": "本", "Dong": "东東", "Jing": "京", "Zhong": "中", "Guo": "国國", "Ren": "人", "Da": "大",
        "Xiao": "小", "Wen": "文", "Zi": "字", "Biao": "表", "Shu": "数數", "Ju": "据據", "Yong": "用", "Hu": "户",
        "Ming": "名", "Ding": "订", "Dan": "单", "Chan": "产產", "Pin": "品", "Ke": "客", "Hui": "会", "Yuan": "员",
        "Gu": "顾顧"}.items() for char in chars}


class Unknown(Exception):
    """A letter that this table lacks."""


def transliterate(text):
    return "".join(map(_ascii, text))


def _ascii(char):
    if char.isascii():
        return char
    for table in (_LATIN, _IDEOGRAPHS, _GREEK, _CYRILLIC):
        if char in table:
            return table[char]
        if char.lower() in table:
            return table[char.lower()].capitalize()
    name = unicodedata.name(char, "")
    if name.startswith(("HIRAGANA LETTER ", "KATAKANA LETTER ", "HANGUL SYLLABLE ")):
        return name.split()[-1].lower()
    plain = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    if plain != char:
        return transliterate(plain)
    kind = unicodedata.category(char)[0]
    if kind == "M" or ord(char) > 0xffff:    # emoji, too
        return ""
    if kind in "LNS":
        raise Unknown(f"{char!r} ({name}) has no transliteration here; add it to {__name__}.py")
    return "-"
