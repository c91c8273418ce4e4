"""The verbs of the command line: parse, call, print. Nothing heavy is imported before a verb is known."""

from __future__ import annotations

# verb: (module with a `run(arguments)`, function, what it does)
VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("bothways.demo", "run", "the whole way on text that is already on this machine, in minutes"),
    "tokenizer": ("bothways.verbs.tokenizer", "tokenizer", "learn a WordPiece vocabulary from text"),
    "prepare": ("bothways.verbs.prepare", "prepare", "turn text into a token store"),
    "pretrain": (
        "bothways.verbs.pretrain",
        "pretrain",
        "train an encoder by masked LM and next sentence, or a model of the next token",
    ),
    "finetune": ("bothways.verbs.finetune", "finetune", "train a model for a task on labelled rows"),
    "evaluate": ("bothways.verbs.evaluate", "evaluate", "measure a model on labelled rows, or on held-out text"),
    "predict": ("bothways.verbs.predict", "predict", "predict every row of a table"),
    "compare": ("bothways.verbs.compare", "compare", "train what came before BERT beside it, on the same rows"),
    "fill": ("bothways.verbs.fill", "fill", "say what could stand at each [MASK]"),
    "classify": ("bothways.verbs.classify", "classify", "give texts their label"),
    "tag": ("bothways.verbs.tag", "tag", "mark entities, or label every word"),
    "answer": ("bothways.verbs.answer", "answer", "answer a question from a text"),
    "generate": ("bothways.verbs.generate", "generate", "go on with a text, a token at a time"),
    "score": ("bothways.verbs.score", "score", "say how likely a text is, and which word comes next"),
    "suggest": ("bothways.verbs.suggest", "suggest", "suggest the next word"),
    "chat": ("bothways.verbs.chat", "chat", "talk with a model that learnt from conversations"),
    "embed": ("bothways.verbs.embed", "embed", "turn texts into vectors"),
    "similar": ("bothways.verbs.similar", "similar", "find the lines of a file most like a text"),
    "export": (
        "bothways.verbs.export",
        "export",
        "write a model for ONNX or sentence-transformers",
    ),
    "bench": ("bothways.verbs.bench", "bench", "measure how fast a model is on this machine"),
    "explain": ("bothways.verbs.explain", "explain", "look inside a model: attention, embeddings, predictions"),
    "info": ("bothways.verbs.info", "info", "say what a store, a model, a run or a vocabulary is"),
}
