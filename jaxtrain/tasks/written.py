"""Benchmarks whose answer is written out and graded, or is a word to be foretold (LAMBADA)."""

from dataclasses import replace

from jaxtrain.tasks import graders
from jaxtrain.tasks.task import Blank, Exercise, Row, Shots, Task

_ENDS = ("</s>", "<|im_end|>")


def gsm8k(row: Row) -> Exercise:
    """Word problems of grade school (Cobbe et al. 2021, arXiv:2110.14168) behind five solved ones.

    Question: A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total …?
    Answer: It takes 2/2=<<2/2=1>>1 bolt of white fiber
    So the total amount of fabric is 2+1=<<2+1=3>>3 bolts of fabric
    #### 3
    """
    return Exercise(
        prompt=f"Question: {row['question']}\nAnswer:",
        graders=graders.gsm8k(row["answer"]),
        stops=("Question:", *_ENDS),
    )


def gsm8k_chat(row: Row) -> Exercise:
    """The same problems as a user asks them, without examples."""
    asked = "Think step by step, then give the result alone on the last line, after ####."
    return Exercise(
        prompt=f"{row['question']}\n{asked}", graders=graders.gsm8k(row["answer"]), chat=True, tokens=400
    )


def humaneval(row: Row) -> Exercise:
    """A Python function from its signature and docstring (Chen et al. 2021, arXiv:2107.03374): pass@1.

    The code runs against the item's tests in the sandbox. They may call functions that the prompt defines:
    their own, not the program's.
    """
    prompt, name = row["prompt"], row["entry_point"]
    tests = f"{row['test']}\ncheck({name})\n"
    return Exercise(
        prompt=prompt,
        graders={"pass_at_1": graders.code(tests, prompt, name, behind=prompt)},
        stops=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        tokens=512,
    )


def truthfulqa(row: Row) -> Exercise:
    """Questions that invite a common falsehood (Lin et al. 2022, arXiv:2109.07958).

    Q: Why do veins appear blue?
    A:

    Right where the answer is nearer to a true reference than to any false one, by ROUGE-L. The paper judges
    by a trained model or by people; this stand-in rewards wording: "I have no comment" scores well.
    """

    def references(field: str, column: str) -> list[str]:
        found = row[field] if field in row else row[column].split(";")
        return [text.strip() for text in found if text.strip()]

    true = graders.similarity([*references("correct_answers", "Correct Answers"), "I have no comment."])
    false = graders.similarity(references("incorrect_answers", "Incorrect Answers"))
    return Exercise(
        prompt=f"Q: {row['question'] if 'question' in row else row['Question']}\nA:",
        graders={"rouge_l_accuracy": lambda said: float(true(said) > false(said))},
        stops=("\n",),
        tokens=64,
    )


def bbh(row: Row) -> Exercise:
    """BIG-Bench Hard, the part answered in one word or number (Suzgun et al. 2022, arXiv:2210.09261).

    Q: not ( True ) and ( True ) is
    A: False

    The first three rows of a file are shown solved. The paper's examples reason step by step; these do not,
    so scores are those of direct answers.
    """
    return Exercise(
        prompt=f"Q: {row['input']}\nA:",
        graders={"exact_match": graders.bare(row["target"])},
        stops=("\n", "Q:", *_ENDS),
        tokens=16,
    )


def lambada(row: Row) -> Blank:
    """The last word of a passage, which its last sentence alone does not tell (Paperno et al. 2016,
    arXiv:1606.06031), in OpenAI's form of the text, as in lm-eval's `lambada_openai`.
    """
    text = row["text"] if "text" in row else f"{row['context']} {row['continuation']}"
    context, word = text.rsplit(" ", 1)
    return Blank(context=context, continuation=f" {word}")


BBH = (
    *("boolean_expressions", "causal_judgement", "navigate"),
    *("object_counting", "sports_understanding", "web_of_lies"),
)

_GSM8K = Task(
    name="gsm8k",
    version=1,
    metric="strict",
    path="benchmarks/gsm8k_test.jsonl",
    practice="benchmarks/gsm8k_train.jsonl.gz",
    parse=gsm8k,
    reward={"strict": 1.0, "form": 0.1},
    hub=("openai/gsm8k", "main", "test"),
    shots=Shots(
        count=5,
        render=lambda row: f"Question: {row['question']}\nAnswer: {row['answer']}",
        path="benchmarks/gsm8k_train.jsonl.gz",
    ),
)
TASKS = (
    _GSM8K,
    replace(_GSM8K, name="gsm8k_chat", parse=gsm8k_chat, shots=None),
    Task(
        name="humaneval",
        version=1,
        metric="pass_at_1",
        path="benchmarks/humaneval.jsonl.gz",
        parse=humaneval,
        hub=("openai/openai_humaneval", None, "test"),
    ),
    Task(
        name="lambada",
        version=1,
        metric="accuracy",
        path="benchmarks/lambada.jsonl.gz",
        parse=lambada,
        hub=("EleutherAI/lambada_openai", "default", "test"),
    ),
    Task(
        name="truthfulqa",
        version=1,
        metric="rouge_l_accuracy",
        path="benchmarks/truthfulqa.csv",
        parse=truthfulqa,
        hub=("truthfulqa/truthful_qa", "generation", "validation"),
    ),
    *(
        Task(
            name=f"bbh_{part}",
            version=1,
            metric="exact_match",
            path=f"benchmarks/bbh/{part}.json.gz",
            parse=bbh,
            hub=("SaylorTwift/bbh", part, "test"),
            shots=Shots(count=3, render=lambda row: f"Q: {row['input']}\nA: {row['target']}"),
        )
        for part in BBH
    ),
)
