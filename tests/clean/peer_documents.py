"""Documents on which presets are compared with datatrove's filters: real pages, and one edge a rule."""

import random
from collections import Counter
from pathlib import Path

from jaxtrain.collect.guard import read_here
from jaxtrain.collect.web import WebSource
from jaxtrain.collect.wiki import WikiSource

DATA = Path(__file__).parents[2] / "data/quickstart"
SENTENCE = "The ship that we saw had to turn back with all of the people and their cargo on board."
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "harbour",
    "evening",
    "village",
    "market",
    "winter",
    "meadow",
    "river",
    "stone",
]

LINES = [  # what C4 asks of lines
    "Lorem ipsum dolor sit amet.",
    "See our privacy policy and { more.",
    "Enable JavaScript { now.",
    "We use cookies on this site.",
    "Two words.",
    "No end here",
    f"{'x' * 1001} is long.",
    "It was [12] so [edit].",
    'She said "yes to it"',
    "It goes on and on...",
    "lorem ipsum with no end",
    "{ no end at all",
]


def documents() -> list[str]:
    """The same texts in every run."""
    web = WebSource(name="web", paths=(str(DATA / "web.warc.gz"),))
    wiki = WikiSource(name="wiki", paths=(str(DATA / "wiki.xml.bz2"),))
    real = [page.text for page in read_here(web, Counter())] + [
        article.text[:20_000] for article in read_here(wiki, Counter())
    ]
    return real + list(_edges())


def _edges() -> list[str]:
    rng = random.Random(0)
    page = "\n\n".join(f"{SENTENCE} It was {word} in the {word}, they said." for word in WORDS)
    found = ["", " ", "\n", " \n \n", "\u2028", "\r\n", "a", "…", "...", "、", "•", "___", SENTENCE]
    for end in ("\r\n", "\u2028", "\x85", "\v", "\n\n\n", "\r"):  # line ends of all kinds
        found.append(page.replace("\n\n", end))
    found += [page + "…", page.replace(".", "…"), page.replace(".", "..."), page.replace(".", " . . .")]
    found += [
        f"# {page}",
        page.replace(" ", " # "),
        page.replace("\n\n", "\n• "),
        page.replace("\n\n", "\n- "),
    ]
    found += [
        "这是一个很长的句子，我们在这里写了很多字。" * 30,
        "これは日本語の文章です。\n" * 20,
        "भारत एक देश है।\n" * 20,
    ]
    for low, word in ((49, "word"), (50, "word"), (51, "the")):  # Gopher's fewest words
        found.append(" ".join(["and the of", *(f"{word}{i}" for i in range(low - 3))]))
    for length in (2, 3, 9, 10, 11):  # exactly the shortest and longest mean word
        found.append(" ".join(_spell(length, i) for i in range(80)) + " be to"[: 6 * (length > 3)])
    for symbols in (9, 10, 11):  # one symbol in ten words, exactly
        text = "the and " + " ".join(_spell(5, i) for i in range(98 - symbols))
        found += [
            text + " #" * symbols,
            text + " …" * symbols,
            text + " 12" * symbols,
            text + " 12" * 2 * symbols,
        ]
    for dots in (2, 3, 4):  # three lines of ten end in an ellipsis
        found.append("\n".join(f"{SENTENCE[:-1]} {i}{'...' if i < dots else '.'}" for i in range(10)))
    for bullets in (17, 18, 19):  # nine lines of ten begin with a bullet
        found.append("\n".join(f"{'- ' if i < bullets else ''}{SENTENCE} {i}" for i in range(20)))
    for stops in (0, 1, 2, 3):
        found.append(" ".join([*["the", "of", "with"][:stops], *(_spell(6, i) for i in range(60))]) + ".")
    for again in (1, 2, 3, 5):  # the share of lines, paragraphs and characters that are repeated
        lines = [
            f"Line number {i} of the text that we have to read and that ends here." for i in range(10, 20)
        ]
        found += ["\n".join(lines + lines[:again]), "\n\n".join(lines + lines[:again])]
        found += ["\n".join(lines + ["ab"] * again), "\n".join([*lines, *[lines[0]] * again])]
    for ends in (11, 12, 13):  # 12 % of the lines end in punctuation; 67 % are short
        found.append("\n".join(f"{SENTENCE[:-1]} {i}{'.' if i < ends else ''}" for i in range(100)))
        found.append("\n".join(f"{_spell(30 if i < 54 + ends else 31, i)}." for i in range(100)))
    for ratio in (29, 30, 31):  # three line ends in ten words
        words = [_spell(7, i) for i in range(100)]
        found.append(
            " ".join(words[:2]) + "".join(("\n" if i < ratio else " ") + w for i, w in enumerate(words[2:]))
        )
    for sentences in (3, 4, 5, 6):
        found.append("\n".join(f"{SENTENCE} ({i})." for i in range(sentences)))
        found.append(" ".join(f"Number {i} of them said so." for i in range(sentences)))
    found += [f"{page}\n{line}" for line in LINES]
    for _ in range(60):  # repetition of every degree
        size, kinds = rng.randrange(60, 400), rng.choice((4, 8, 15))
        run = [rng.choice(WORDS[:kinds]) for _ in range(size)]
        fresh = [_spell(rng.randrange(3, 9), i) for i in range(rng.randrange(400))]
        found.append(" ".join(fresh + run) + ".")
    return found


def _spell(length: int, number: int) -> str:
    """The `number`th made-up word of `length` letters."""
    letters = ""
    for _ in range(length):
        number, digit = divmod(number * 7 + 3, 26)
        letters += chr(ord("a") + digit)
    return letters
