"""Questions with choices: right where the model finds the right choice's text likeliest behind its context.

Prompts are those of lm-eval; all but `mmlu` come without examples and show no letters. Where the number to
quote is per byte, OLMES has it so (Gu et al. 2024, arXiv:2406.08446).
"""

import re
from collections.abc import Callable, Iterable

from jaxtrain.tasks.task import Item, Row, Shots, Task

LETTERS = "ABCD"


def arc(row: Row) -> Item:
    """Questions of school science (Clark et al. 2018, arXiv:1803.05457); word counts answer the easy ones.

    Question: Which technology was developed most recently?
    Answer: cellular telephone
    """
    choices = row["choices"]
    answer = choices["label"].index(row["answerKey"])
    return _item(f"Question: {row['question']}\nAnswer:", choices["text"], answer)


def boolq(row: Row) -> Item:
    """Yes-or-no questions about a passage (Clark et al. 2019, arXiv:1905.10044); 62 % are yes.

    …the energy balance…
    Question: does ethanol take more energy make that produces?
    Answer: no
    """
    answer = row["answer"] if "answer" in row else row["label"]
    return _item(f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ("no", "yes"), int(answer))


def hellaswag(row: Row) -> Item:
    """Which of four endings follows (Zellers et al. 2019, arXiv:1905.07830), without WikiHow's brackets.

    Roof shingle removal: A man is sitting on a roof. He starts pulling up roofing on a roof.
    """

    def plain(text: str) -> str:
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    context = plain(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return _item(context, map(plain, row["endings"]), int(row["label"]), unconditional="")


def piqa(row: Row) -> Item:
    """Which of two ways reaches an everyday goal (Bisk et al. 2020, arXiv:1911.11641).

    Question: Find spices easily in the kitchen.
    Answer: Arrange your spices alphabetically to make finding them easy.
    """
    return _item(f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), int(row["label"]))


def sciq(row: Row) -> Item:
    """Science exam questions with a supporting text (Welbl et al. 2017, arXiv:1707.06209).

    (text)
    Question: Who proposed the theory of evolution by natural selection?
    Answer: darwin

    The right choice is the last of the four: order carries nothing, each is scored by itself.
    """
    texts = (row[name] for name in ("distractor1", "distractor2", "distractor3", "correct_answer"))
    return _item(f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:", texts, 3)


def siqa(row: Row) -> Item:
    """What people do, feel and mean (Sap et al. 2019, arXiv:1904.09728), three choices.

    Q: Tracy didn't go home that evening and resisted Riley's attacks. What does Tracy need to do before this?
    A: Find somewhere to go
    """
    texts = (row[name] for name in ("answerA", "answerB", "answerC"))
    answer = ("1", "2", "3").index(str(row["label"]))
    return _item(f"Q: {row['context']} {row['question']}\nA:", texts, answer, unconditional="A:")


def winogrande(row: Row) -> Item:
    """Which of two names fills a blank (Sakaguchi et al. 2019, arXiv:1907.10641).

    Terry tried to bake the eggplant in the toaster oven but the [eggplant | toaster] was too big.

    Partial evaluation (Trinh and Le 2018, arXiv:1806.02847): each option is put into the blank, and what
    follows is scored, so that both are judged on the same words.
    """
    before, after = row["sentence"].split("_")
    return Item(
        contexts=(before + row["option1"], before + row["option2"]),
        continuations=(f" {after.strip()}",) * 2,
        answer=("1", "2").index(row["answer"]),
        unconditional="",
    )


def mmlu(row: Row) -> Item:
    """57 subjects of school and profession (Hendrycks et al. 2021, arXiv:2009.03300), behind five solved.

    The following are multiple choice questions (with answers) about abstract algebra.

    Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.
    A. 0
    B. 4
    C. 2
    D. 6
    Answer: B
    """
    return _item(_with_letters(row), LETTERS, int(row["answer"]))


def mmlu_cloze(row: Row) -> Item:
    """The question alone, its choices' texts scored: a small model does not know what letters are for."""
    return _item(f"Question: {row['question'].strip()}\nAnswer:", row["choices"], int(row["answer"]))


def _item(context: str, texts: Iterable[str], answer: int, unconditional: str = "Answer:") -> Item:
    """Choices behind one context."""
    continuations = tuple(f" {text}" for text in texts)
    contexts = (context,) * len(continuations)
    return Item(contexts=contexts, continuations=continuations, answer=answer, unconditional=unconditional)


def _with_letters(row: Row) -> str:
    choices = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}\n{choices}Answer:"


_MMLU_SHOTS = Shots(
    count=5,
    render=lambda row: f"{_with_letters(row)} {LETTERS[int(row['answer'])]}",
    path="benchmarks/mmlu_dev.jsonl.gz",
    split="dev",
    by="subject",
    heading=lambda row: (
        "The following are multiple choice questions (with answers) about "
        f"{row['subject'].replace('_', ' ')}.\n\n"
    ),
)


def _task(
    parse: Callable[[Row], Item],
    metric: str,
    hub: tuple[str, str | None, str],
    name: str = "",
    file: str = "",
    shots: Shots | None = None,
) -> Task:
    """name, file: those of `parse` where none is given."""
    name = name or parse.__name__
    path = f"benchmarks/{file or name}.jsonl.gz"
    return Task(name=name, version=1, metric=metric, path=path, parse=parse, hub=hub, shots=shots)


TASKS = (
    _task(arc, "accuracy_per_byte", ("allenai/ai2_arc", "ARC-Easy", "test"), "arc_easy"),
    _task(arc, "accuracy_per_byte", ("allenai/ai2_arc", "ARC-Challenge", "test"), "arc_challenge"),
    _task(boolq, "accuracy", ("google/boolq", None, "validation")),
    _task(hellaswag, "accuracy_per_byte", ("Rowan/hellaswag", None, "validation")),
    _task(mmlu, "accuracy", ("cais/mmlu", "all", "test"), file="mmlu_test", shots=_MMLU_SHOTS),
    _task(mmlu_cloze, "accuracy_per_byte", ("cais/mmlu", "all", "test"), file="mmlu_test"),
    _task(piqa, "accuracy_per_byte", ("baber/piqa", None, "validation")),
    _task(sciq, "accuracy_per_byte", ("allenai/sciq", None, "validation")),
    _task(siqa, "accuracy", ("lighteval/siqa", None, "validation")),
    _task(winogrande, "accuracy", ("allenai/winogrande", "winogrande_xl", "validation")),
)
