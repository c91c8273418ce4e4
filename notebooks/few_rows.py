# %% [markdown]
# # A classifier of few labelled rows
#
# Sixty tickets of an invented internet provider, a model of sentences, and the question whether it is better than
# something simple. The rows come with the package; `MODEL` is any encoder: a directory, or a name of the hub.

# %%
import os
from importlib import resources

import bothways as bw

MODEL = os.environ.get("MODEL", "sentence-transformers/all-MiniLM-L6-v2")
samples = resources.files("bothways") / "samples" / "helpdesk"

# %% [markdown]
# Rows are dictionaries here; a file, or a DataFrame of pandas or polars, does as well.

# %%
import json


def rows_of(name):
    return [json.loads(line) for line in (samples / name).read_text(encoding="utf-8").splitlines()]


train, test = rows_of("tickets-train.jsonl")[:60], rows_of("tickets-test.jsonl")[:60]
train[0]

# %% [markdown]
# The best epoch by the held-out rows is kept; what is in `few` is a directory of `transformers` and a report.

# %%
result = bw.finetune("classify", MODEL, train, test, "few", epochs=6, lr=3e-4, overwrite=True, quiet=True)
result.metrics

# %%
tickets = bw.load("few")
tickets.classify(["No light on my router since this morning", "My bill is wrong"])

# %% [markdown]
# ## Where it is wrong
#
# The most confident mistakes say whether the model or the labels are to blame.

# %%
predictions = tickets.classify([row["text"] for row in test])
wrong = [
    (found.probability, found.label, row["label"], row["text"])
    for found, row in zip(predictions, test, strict=True)
    if found.label != row["label"]
]
for probability, predicted, truth, text in sorted(wrong, reverse=True)[:5]:
    print(f"{probability:.2f} {predicted} (truth: {truth}) {text[:80]}")

# %% [markdown]
# ## Which rows to label next
#
# Those of which it is least sure.

# %%
unlabelled = [row["text"] for row in rows_of("tickets-train.jsonl")[60:160]]
unsure = sorted(zip((found.probability for found in tickets.classify(unlabelled)), unlabelled, strict=True))
[text[:80] for _, text in unsure[:5]]
