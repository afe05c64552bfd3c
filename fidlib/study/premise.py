"""Whether pictures of a study mean anything."""

import pandas as pd

from fidlib.methods import LEARNED


def check(
    table: pd.DataFrame, classes: int, triggers: int, labels: str = ""
) -> list[str]:
    """Raise if a picture of these models would mean nothing.

    Args:
        table: As `Study.table`.
        classes: K, how many there are.
        triggers: How many there are.
        labels: Their policy: of `true` ones the host may answer as many as it likes,
            short of all that a marked model does.

    Returns:
        The names of those that answer nine triggers in ten, or more.

    Raises:
        ValueError: If the host is no better than a guess, already answers the triggers,
            or no model learned them.
    """
    accuracy, answered = table.loc["host", ["accuracy_test", "trigger_accuracy"]]
    guess = 1 / classes
    if accuracy < min(2 * guess, (1 + guess) / 2):
        raise ValueError(
            f"the host gets {accuracy:.1%} of the test images right, hardly more than "
            f"a guess among {classes} classes: train it longer (epochs), or choose "
            "another seed."
        )
    # Three standard deviations of a guesser on so many triggers, or 0.15.
    chance = 3 * (guess * (1 - guess) / triggers) ** 0.5
    most = LEARNED if labels == "true" else guess + max(0.15, chance)
    if answered > most:
        raise ValueError(
            f"the host answers {answered:.1%} of the triggers, so they prove no "
            "watermark: choose another seed, or more triggers."
        )
    reached = table.trigger_accuracy.drop("host").to_dict()
    learned = [name for name, share in reached.items() if share >= LEARNED]
    if reached and not learned:
        raise ValueError(
            f"no model answers the triggers ({reached}), so there is no watermark to "
            "look at: train longer (epochs)."
        )
    return learned
