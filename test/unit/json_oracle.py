"""json.c against Python's reader: json_oracle.py FUZZ_JSON COUNT SEED

FUZZ_JSON is the program of fuzz_json.c. Texts are made and spoilt here; both
readers must accept the same ones and find the same in them. Numbers are compared
as they are written.
"""

import json
import random
import subprocess
import sys

PIECES = ['"', "\\", "\\u", "\\u0000", "\\ud83d", "\\ude00", "\\u00e9", "{", "}", "[", "]", ",", ":", "-", "+", ".", "e", "0", "1", "01", "true",
          "false", "null", "NaN", "Infinity", " ", "\t", "\n", "\r", "\v", "\x00", "\x1f", "\x7f", "\u00a0", "\ufeff", "\u2028", "\U0001f600", "//"]


def make(chance, depth=0):
    kind = chance.random()
    if kind < 0.3 or depth > 5:
        return chance.choice([None, True, False, 0, -0.0, 1.5, -7, 10**30, 1e300, 5e-324, chance.random(), chance.getrandbits(63)])
    if kind < 0.6:
        return "".join(chance.choice('ab"\\/\b\f\n\r\t\0\x1f\x7f\u00e9\u20ac\U0001f600') for _ in range(chance.randrange(12)))
    if kind < 0.8:
        return [make(chance, depth + 1) for _ in range(chance.randrange(5))]
    return {make_name(chance): make(chance, depth + 1) for _ in range(chance.randrange(5))}


def make_name(chance):
    return "".join(chance.choice('ab"\\\u00e9\0') for _ in range(chance.randrange(4)))


def spoil(chance, text):
    at = chance.randrange(len(text) + 1)
    return chance.choice((
        lambda: text[:at],
        lambda: text[:at] + text[at + 1:],
        lambda: text[:at] + chance.choice(PIECES) + text[at:],
        lambda: text[:at] + chance.choice(PIECES) + text[at + 1:],
        lambda: text[:at] + text[at // 2:]))()


def refuse(word):
    raise ValueError(word)


def object_of(members):
    """Half a pair of surrogates is no text, also where a later member of the
    same name hides it."""
    json.dumps(members, ensure_ascii=False).encode()
    return dict(members)


def read(text):
    """("yes", what Python finds) or ("no",)."""
    try:
        value = json.loads(text, parse_constant=refuse, parse_int=str, parse_float=str,
                           object_pairs_hook=object_of)
        json.dumps(value, ensure_ascii=False).encode()
        return "yes", value
    except (ValueError, RecursionError):
        return ("no",)


def main():
    program, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    texts = []
    for _ in range(count):
        text = json.dumps(make(chance), ensure_ascii=chance.random() < 0.5,
                          indent=chance.choice([None, None, 1]))
        for _ in range(chance.randrange(3)):
            text = spoil(chance, text)
        texts.append(text)
    lines = "".join(text.encode().hex() + "\n" for text in texts)
    answers = subprocess.run([program, "read"], input=lines, stdout=subprocess.PIPE, check=True, text=True,
                             encoding="utf-8").stdout.split("\n")
    assert len(answers) == count + 1, f"{len(answers) - 1} answers to {count} texts"
    accepted = 0
    for text, answer in zip(texts, answers):
        wanted = read(text)
        found = ("no",) if answer == "-" else read(answer)
        accepted += wanted != ("no",)
        if wanted != found:
            print(f"differs: {text!r}: {answer!r}")
            return 1
    print(f"{count} texts, {accepted} accepted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
