# %% [markdown]
# # Search, and answers from what was found
#
# Help articles of an invented internet provider as vectors, and the nearest ones to a question. `MODEL` is any
# encoder of sentences: a directory, or a name of the hub.

# %%
import json
import os
from importlib import resources

import numpy as np

import bothways as bw

MODEL = os.environ.get("MODEL", "sentence-transformers/all-MiniLM-L6-v2")
samples = resources.files("bothways") / "samples" / "helpdesk"

# %%
data = json.loads((samples / "questions-test.json").read_text(encoding="utf-8"))["data"]
paragraphs = [paragraph for article in data for paragraph in article["paragraphs"]]
texts = [paragraph["context"] for paragraph in paragraphs]
len(texts), texts[0][:100]

# %% [markdown]
# ## Vectors, and the nearest

# %%
model = bw.load(MODEL)
vectors = model.embed(texts)
vectors.shape

# %%
for match in model.similar("How do I get my money back?", texts, top_k=3):
    print(f"{match.cosine:.2f} {match.text[:90]}")

# %% [markdown]
# ## Is it any good?
#
# Each question of the samples belongs to an article: how often is that the nearest, and among the nearest three?

# %%
asked = [(question["question"], n) for n, paragraph in enumerate(paragraphs) for question in paragraph["qas"]]
order = np.argsort(-model.embed([question for question, _ in asked]) @ vectors.T, axis=1)
gold = np.array([n for _, n in asked])
{f"among the nearest {k}": float((order[:, :k] == gold[:, None]).any(axis=1).mean()) for k in (1, 3)}

# %% [markdown]
# ## A picture of the texts
#
# The two main directions of the vectors: texts that are near mean something alike.

# %%
centred = vectors - vectors.mean(axis=0)
plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
[(round(float(x), 2), round(float(y), 2), text[:40]) for (x, y), text in zip(plane, texts, strict=True)][:5]
