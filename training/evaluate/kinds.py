"""The kinds of data that a model is measured on. Imports nothing heavy: the command's help lists them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """`function` of `module` measures it; `about`: what the help says."""

    module: str
    function: str
    about: str


KINDS = {
    "text": Kind("training.evaluate.text", "evaluate_text", "any text, plain or packed: perplexity, bits per byte"),
    "wikitext2": Kind("training.evaluate.wikitext", "evaluate_wikitext", "WikiText's file: word and token perplexity"),
    "lambada": Kind("training.evaluate.lambada", "evaluate_lambada", "LAMBADA: the last word and the last token"),
    "hellaswag": Kind("training.evaluate.hellaswag", "evaluate_hellaswag", "HellaSwag: accuracy by three conventions"),
    "classify": Kind("training.evaluate.classify", "evaluate_classifier", "labelled rows, for a trained classifier"),
    "fewshot": Kind("training.evaluate.fewshot", "evaluate_fewshot", "labelled rows, for a language model"),
    "answers": Kind("training.evaluate.answers", "evaluate_answers", "instructions or chats with reference answers"),
    "lm-eval": Kind("training.evaluate.harness", "evaluate_harness", "tasks of the lm-eval harness, by name"),
}
