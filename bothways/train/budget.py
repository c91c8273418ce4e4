"""A budget of time instead of a number of steps: how many steps of which size end with it on this machine.

Chosen once, from what `train.speed` measures, and written into the run's options: a run that is resumed keeps its
schedule. Evaluations, checkpoints and the making of the model are in the budget.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from bothways.data.store import TokenStore
from bothways.errors import UserError, option
from bothways.progress import Progress
from bothways.train.distributed import World
from bothways.train.options import TrainOptions
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import (
    MIN_VALIDATION_TOKENS,
    build_objective,
    intervals_of,
    phases_of,
    steps_of,
    validation_tokens,
)
from bothways.train.run import RunDirectory
from bothways.train.speed import Costs, measure_costs
from bothways.train.starting_point import starting_point

SECONDS_IN = {"hours": 3600, "minutes": 60}

# Share of the steps in which the rate falls. A stable phase and a fifth of decay reach what a cosine over the whole run
# does (Hägele et al. 2024, arXiv:2405.18392, section 3), and such a run can be made longer by other hours.
BUDGET_DECAY = 0.2
LEAST_STEPS = 50  # fewer are no training to speak of
SPARE = 0.02  # share of the time that is left for what no measurement of a few seconds sees

AUTO, AUTO_SIZES = "auto", ("tiny", "mini", "small", "medium", "base")
# Hoffmann et al. 2022 (arXiv:2203.15556), table 3, find 20 tokens for each parameter best for a given cost; a masked LM
# learns from 15 % of the tokens only, so a size that sees fewer is too large in any case.
TOKENS_PER_PARAMETER = 20
# Reading the same text more often is worth next to nothing: Muennighoff et al. 2023 (arXiv:2305.16264), section 6.
WORTHWHILE_EPOCHS = 40


@dataclass(frozen=True)
class RunPlace:
    """Where a run is to be made: its text, its directory, its processes. began: `time.monotonic()` of the command."""

    store: TokenStore
    run: RunDirectory
    world: World
    began: float

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.began


def settle(options: PretrainOptions, place: RunPlace, progress: Progress) -> PretrainOptions:
    """The options with the steps, the size and the decay of their run. All processes must call it.

    A run that goes on keeps what was chosen for it, where it is given the same time; given another, it keeps its size.
    Raises UserError for a time and steps together, for a time that is too short, and for `auto` without a time.
    """
    seconds = _seconds(options)
    there: dict[str, Any] = place.world.agree(place.run.described().get("options", {}) if place.run.goes_on() else {})
    timed = seconds is not None or any(there.get(unit) is not None for unit in SECONDS_IN)
    if options.decay is None:
        usual = TrainOptions.decay if seconds is None else BUDGET_DECAY
        options = replace(options, decay=there.get("decay", TrainOptions.decay) if there and timed else usual)
    if options.size == AUTO and options.model is None and timed and "size" in there:
        options = replace(options, size=there["size"])
    _check_size(options, seconds)
    if seconds is None:
        return replace(options, steps=steps_of(options))
    if all(getattr(options, unit) == there.get(unit) for unit in SECONDS_IN):
        return replace(options, steps=there["steps"])
    return _choose(options, seconds, place, progress)


def _seconds(options: PretrainOptions) -> float | None:
    """The time that is given, or None."""
    given = {unit: getattr(options, unit) for unit in SECONDS_IN if getattr(options, unit) is not None}
    if not given:
        return None
    if options.steps is not None or len(given) > 1:
        together = [*given.items(), *([] if options.steps is None else [("steps", options.steps)])]
        shown = " and ".join(option(name, value) for name, value in together)
        raise UserError(f"{shown}: give one of them; a time is turned into steps")
    unit, value = next(iter(given.items()))
    if not 0 < value < math.inf:
        raise UserError(f"{option(unit, value)}: expected a number above 0")
    return float(value * SECONDS_IN[unit])


def _check_size(options: PretrainOptions, seconds: float | None) -> None:
    if options.size != AUTO:
        return
    auto = option("size", AUTO)
    if options.model is not None:
        raise UserError(f"{auto} and {option('model', options.model)}: a model has its size; give one of them")
    if seconds is None:
        named = f"or a size ({', '.join(AUTO_SIZES)})"
        raise UserError(f"{auto}: is chosen by {option('hours')} or {option('minutes')}; give one of these, {named}")


def _choose(options: PretrainOptions, seconds: float, place: RunPlace, progress: Progress) -> PretrainOptions:
    """Measure, choose, and say what was chosen."""
    progress.wait(f"{progress.title}  measuring how fast this machine is …")
    if options.size == AUTO:
        options, costs = _largest_with_enough(options, seconds, place)
    else:
        costs = _measured(options, seconds, place)
    elapsed: float = place.world.agree(place.elapsed)
    steps = fitting_steps((1 - SPARE) * (seconds - elapsed), options, costs)
    if steps is None:
        least = replace(options, steps=least_steps(options))
        raise _too_short(least, elapsed + run_seconds(least, costs) / (1 - SPARE))
    chosen = replace(options, steps=steps)
    progress.say(f"{progress.title}: {_in_words(chosen, costs)}")
    return chosen


def _measured(options: PretrainOptions, seconds: float, place: RunPlace) -> Costs:
    return measure_costs(place.store, options, place.run.path, place.world, seconds)


def _largest_with_enough(options: PretrainOptions, seconds: float, place: RunPlace) -> tuple[PretrainOptions, Costs]:
    """The largest of `AUTO_SIZES` that sees `TOKENS_PER_PARAMETER` in this time, and at least the smallest.

    A size is measured where the one below it sees enough for it; a larger model never sees more.
    """
    sized = replace(options, size=AUTO_SIZES[0])
    costs = _measured(sized, seconds, place)
    for size in AUTO_SIZES[1:]:
        larger = replace(options, size=size)
        enough = TOKENS_PER_PARAMETER * _layer_parameters(larger, place.store)
        if _tokens_seen(sized, costs, seconds, place) < enough:
            break
        larger_costs = _measured(larger, seconds, place)
        if _tokens_seen(larger, larger_costs, seconds, place) < enough:
            break
        sized, costs = larger, larger_costs
    return sized, costs


def _layer_parameters(options: PretrainOptions, store: TokenStore) -> int:
    """Parameters of the encoder's layers, without the embeddings."""
    model = starting_point(store, build_objective(options), options).model
    return sum(parameter.numel() for parameter in model.encoder.layers.parameters())


def _tokens_seen(options: PretrainOptions, costs: Costs, seconds: float, place: RunPlace) -> int:
    """The tokens of a run that fits the rest of the time, as far as it is worthwhile to read the text again."""
    left = (1 - SPARE) * (seconds - place.world.agree(place.elapsed))
    steps = fitting_steps(left, options, costs)
    seen = 0 if steps is None else tokens_of(replace(options, steps=steps))
    return min(seen, WORTHWHILE_EPOCHS * place.store.split("train").tokens)


def tokens_of(options: PretrainOptions) -> int:
    """The tokens that a run trains on, at most."""
    return sum(
        (phase.end - phase.first) * (phase.tokens_per_step or options.tokens_per_step) for phase in phases_of(options)
    )


def least_steps(options: PretrainOptions) -> int:
    """The fewest steps that a time may come to: `LEAST_STEPS`, and one for each phase."""
    many = 10_000
    shortest = min(phase.end - phase.first for phase in phases_of(replace(options, steps=many)))
    return max(LEAST_STEPS, math.ceil(many / shortest))


def fitting_steps(seconds: float, options: PretrainOptions, costs: Costs) -> int | None:
    """The steps of a run that takes at most so many seconds, while one of a step more does not; None where
    `least_steps` take longer."""

    def fits(steps: int) -> bool:
        return run_seconds(replace(options, steps=steps), costs) <= seconds

    fitting = least_steps(options)
    if not fits(fitting):
        return None
    too_many = 2 * fitting
    while fits(too_many):
        fitting, too_many = too_many, 2 * too_many
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        fitting, too_many = (middle, too_many) if fits(middle) else (fitting, middle)
    return fitting


def run_seconds(options: PretrainOptions, costs: Costs) -> float:
    """How long a run of `options.steps` takes, from the making of its model to the writing of it."""
    steps, intervals = steps_of(options), intervals_of(options)
    training = sum(
        (phase.end - phase.first) * seconds for phase, seconds in zip(phases_of(options), costs.steps, strict=True)
    )
    evaluations = math.ceil(steps / (intervals.evaluate or steps))
    read = validation_tokens(options)
    evaluating = (evaluations - 1) * _evaluation_seconds(read.during, costs) + _evaluation_seconds(read.at_end, costs)
    checkpoints = math.ceil(steps / intervals.checkpoint) + 1  # and the model
    return costs.start + training + evaluating + checkpoints * costs.checkpoint


def _evaluation_seconds(tokens: int, costs: Costs) -> float:
    more = max(0, min(tokens, costs.held_out_tokens) - MIN_VALIDATION_TOKENS)
    return costs.evaluation + more * costs.validation_token


def _in_words(options: PretrainOptions, costs: Costs) -> str:
    """What was chosen, and what to type for the same on any machine."""
    fixed: list[tuple[str, Any]] = [("steps", options.steps), ("decay", options.decay)]
    if options.model is None:
        fixed.insert(1, ("size", options.size))
    steps, tokens = steps_of(options), tokens_of(options)
    phases = zip(phases_of(options), costs.steps, strict=True)
    speed = tokens / sum((phase.end - phase.first) * seconds for phase, seconds in phases)
    return (
        f"{_time_option(options)} on this machine, at about {speed:,.0f} tokens/s: {steps:,} steps of "
        f"{options.model or options.size}; for the same on any machine: "
        f"{' '.join(option(name, value) for name, value in fixed)}"
    )


def _time_option(options: PretrainOptions) -> str:
    return next(option(unit, getattr(options, unit)) for unit in SECONDS_IN if getattr(options, unit) is not None)


def _too_short(least: PretrainOptions, seconds: float) -> UserError:
    """least: a run of the fewest steps. seconds: that it needs in all."""
    unit = "minutes" if least.hours is None else "hours"
    needed = 1.1 * seconds / SECONDS_IN[unit]  # what is measured the next time may be a little more
    digits = 1 - math.floor(math.log10(needed))
    enough = math.ceil(needed * 10**digits) / 10**digits
    return UserError(
        f"{_time_option(least)}: too short for {steps_of(least):,} steps of {least.model or least.size} on this "
        f"machine; {option(unit, enough)} would do, or fewer {option('tokens_per_step')}"
    )
