"""The verbs of the command line, and what each does. Nothing heavy is imported before a verb is known.

A verb is a file of its name here with a function `run_VERB(arguments)`, which parses, calls the rooms below and prints;
it returns the exit code, None for 0. Only `demo` lies above this folder.
"""

from __future__ import annotations

VERBS: dict[str, str] = {
    "demo": "the whole way on text that is already on this machine, in minutes",
    "tokenizer": "learn a vocabulary from text",
    "prepare": "turn text into a token store",
    "join": "make one result of the parts of a large job",
    "pretrain": "train an encoder by masked LM and next sentence, or a model of the next token",
    "finetune": "train a model for a task on labelled rows",
    "evaluate": "measure a model on labelled rows, or on held-out text",
    "predict": "predict every row of a table",
    "compare": "train what came before encoders beside one, on the same rows",
    "fill": "say what could stand at each [MASK]",
    "classify": "give texts their label",
    "tag": "mark entities, or label every word",
    "answer": "answer a question from a text",
    "generate": "go on with a text, a token at a time",
    "score": "say how likely a text is, and which word comes next",
    "suggest": "suggest the next word",
    "chat": "talk with a model that learnt from conversations",
    "embed": "turn texts into vectors",
    "similar": "find the lines of a file most like a text",
    "rerank": "order the lines of a file by how well they go with a query",
    "export": "write a model for ONNX, sentence-transformers or transformers",
    "bench": "measure how fast a model is on this machine",
    "explain": "look inside a model: attention, embeddings, predictions",
    "serve": "answer requests over HTTP, for programs and for people",
    "info": "say what a store, a model, a run or a vocabulary is",
}
