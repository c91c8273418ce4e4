"""How pages and the command line call what is a key in our files: figures, options, facts, and kinds of heads."""

from __future__ import annotations

DISPLAY_NAMES = {
    # figures of merit
    "f1": "F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "answerable_f1": "F1 of questions with an answer",
    "answerable_exact_match": "exact match of questions with an answer",
    "no_answer_accuracy": "accuracy on questions without an answer",
    "mrr": "mean reciprocal rank",
    "log_likelihood": "mean log-likelihood of a token",
    "mlm_loss": "masked-LM loss (nats)",
    "mlm_accuracy": "masked-LM accuracy",
    "nsp_loss": "next-sentence loss (nats)",
    "nsp_accuracy": "next-sentence accuracy",
    "sop_loss": "sentence-order loss (nats)",
    "sop_accuracy": "sentence-order accuracy",
    "lm_loss": "next-token loss (nats)",
    "lm_accuracy": "next-token accuracy",
    "relation_loss": "attention-relation loss (nats)",
    "soft_loss": "soft-target loss (nats)",
    "hidden_loss": "hidden-state loss",
    "tokens_per_second": "tokens/s",
    "grad_norm": "gradient norm",
    # columns of predictions
    "predicted": "prediction",
    "least_probability": "probability of the least sure part",
    "truth_0_to_1": "truth, from 0 to 1",
    "error": "distance from the truth",
    # options and provenance
    "lr": "learning rate",
    "bothways": "Bothways",
    "torch": "PyTorch",
    "model": "started from",
    "teacher": "learnt of the teacher",
    "train": "trained on",
    "train_rows": "rows trained on",
    "evaluation": "measured on",
    "evaluation_rows": "rows measured on",
    "tokens": "tokens trained on",
    "documents": "documents trained on",
    "epochs": "epochs (times that all of it was read)",
    "seconds": "seconds of training",
    "store": "fingerprint of the store",
    "store_path": "store",
    "tokenizer": "fingerprint of the vocabulary",
    "single_label_classification": "one label for each text",
    "multi_label_classification": "any number of labels for each text",
    "regression": "a number for each text",
}

# What a model is for, by its head. (A `SequenceHead` with one output gives a number.)
HEADS_IN_WORDS = {
    "PretrainingHead": "fills in masked words, and says whether one sentence follows another",
    "MaskedLMHead": "fills in masked words",
    "CausalLMHead": "goes on with a text, word by word",
    "SequenceHead": "classifies a text",
    "ChoiceHead": "chooses among answers",
    "TokenHead": "labels the words of a text",
    "SpanHead": "finds the answer to a question in a text",
    "EmbeddingHead": "turns a text into a vector",
    "EncoderHead": "turns a text into a vector",
    "DiscriminatorHead": "tells replaced words from the text's own",
}


def display_name(key: str) -> str:
    """What people call the figure, option or column of this key; `eval_` stands for held-out."""
    if key.startswith("eval_"):
        return f"held-out {display_name(key.removeprefix('eval_'))}"
    return DISPLAY_NAMES.get(key, key.replace("_", " "))


def head_in_words(head: str, num_labels: int = 2) -> str:
    """What a model with a head of this class does: "classifies a text"; the class's own name where it is unknown."""
    if head == "SequenceHead" and num_labels == 1:
        return "gives a text a number"
    return HEADS_IN_WORDS.get(head, head)
