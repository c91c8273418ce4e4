"""The weight of each label in a classifier's loss, as `--class-weights` asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bothways.errors import UserError, option
from bothways.tasks.base import shortened_list


def class_weights(asked: Sequence[str], counts: Mapping[str, int], labels: Sequence[str]) -> tuple[float, ...]:
    """The weight of each of `labels`, in their order; none where none is asked for.

    asked: `balanced`, or LABEL=WEIGHT for some; raises UserError for anything else. counts: the rows of each label.
    """
    if not asked:
        return ()
    if tuple(asked) == ("balanced",):  # as scikit-learn's class_weight="balanced"
        return tuple(sum(counts.values()) / (len(labels) * counts[label]) for label in labels)
    weights = dict.fromkeys(labels, 1.0)
    for asked_weight in asked:
        label, _, number = asked_weight.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if label not in weights or not 0 < weight < np.inf:
            raise UserError(
                f"{option('class_weights', asked_weight)}: expected `balanced` or LABEL=WEIGHT with a weight above 0 "
                f"and a label out of {shortened_list(labels)}"
            )
        weights[label] = weight
    return tuple(weights.values())
