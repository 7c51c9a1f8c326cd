"""Tags: how likely the best value of a hyperparameter is to transfer to a longer run.

The playbook (google-research/tuning_playbook, "Round 1") gives its authors' suspicions, in
decreasing order of the probability of transferring:

- very likely: early training instability can be resolved with a small number of training steps, by
  warmup length and initialisation;
- likely: model architecture (a dramatic win usually transfers, with many counterexamples);
- might: optimization algorithm and optimizer hyperparameters ("loosely"), data augmentation,
  regularization;
- unlikely: the learning-rate schedule.

"We suspect" is all that the playbook claims: a tag says where to look again, not what is true.
"""

from __future__ import annotations

import re

from budgetflow.config.search_space import Tag

# By section; of the prefixes of a field, the longest counts.
_TAGS: dict[str, Tag] = {
    "schedule.": "unlikely",
    "schedule.warmup_": "very_likely",
    "model.": "likely",
    # The playbook's for optimizer, augmentation and regularization; for what it leaves out, the
    # middle, where it is looked at again.
    "": "might",
}
# As a word of its own, as in "init_scale" and "kernel_init", and not in "finite_steps".
_INITIALISATION = re.compile(r"(^|_)(init|initiali[sz]\w*)($|_)")
# Arguments of a model by these names are no architecture.
_REGULARIZES = ("dropout", "weight_decay", "label_smoothing", "drop_path", "stochastic_depth")


def default_tag(field: str) -> Tag:
    """The playbook's tag of a config field, like "model.width"; "might" for what it leaves out.

    A model's argument whose name says "init" is initialisation; a ``dropout_rate`` that a model
    takes as an argument is regularization.
    """
    section, _, name = field.partition(".")
    if section == "model":
        if _INITIALISATION.search(name):
            return "very_likely"
        if regularizes(field):
            return "might"
    return _TAGS[max((prefix for prefix in _TAGS if field.startswith(prefix)), key=len)]


def regularizes(field: str) -> bool:
    """Whether a field is a regularization, in whichever section it stands."""
    section, _, name = field.partition(".")
    return section == "regularization" or any(word in name for word in _REGULARIZES)
