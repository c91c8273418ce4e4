# %% [markdown]
# # Looking inside
#
# What a model does with a sentence: its pieces, its vectors layer by layer, who looks at whom. `MODEL` is any encoder
# that fills masks, as BERT does: a directory, or a name of the hub.

# %%
import os

import bothways as bw

MODEL = os.environ.get("MASKED_MODEL", "google-bert/bert-base-uncased")
model = bw.load(MODEL)
model

# %% [markdown]
# ## What it knows of words

# %%
for fills in model.fill("The doctor went to the [MASK].", top_k=5):
    for fill in fills:
        print(f"{fill.probability:.2f} {fill.token}")

# %% [markdown]
# ## A word has no fixed meaning
#
# The hidden states of one word in two sentences, and how alike they are. `hidden_states` gives those of the last layer,
# `[T, H]`, `[CLS]` and `[SEP]` included.

# %%
import torch

fruit, phone = model.hidden_states(["she ate an apple", "she called by apple"])
float(torch.cosine_similarity(fruit[4], phone[4], dim=0))

# %% [markdown]
# ## Everything at once
#
# The same page that `bothways explain` writes: predictions, tokens, attention, a step of it in numbers, embeddings,
# positions. It asks nothing from the network.

# %%
page = model.explain(
    "The bear ate the honey because it was hungry", others=["she ate an apple", "apple called"], word="apple"
)
page.write("inside.html")
page
