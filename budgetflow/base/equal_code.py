"""Digests of budgetflow's own code that compute the same, so that folders stay usable.

When code that results depend on changes and no number does, what was recorded with it would not be
continued or reused. Whoever makes such a change, and has shown that it changes no number, records
it here by ``scripts/record_equal_code REVISION``. It covers what configs name of budgetflow, and
budgetflow's kinds of study; not a user's code that builds on other modules of budgetflow, which is
vouched for by ``--same_results``.
"""

# What is equal changes no result; how that is told does, and stands elsewhere.
CHANGES_NO_RESULT = True
# A digest that was recorded, and that of later code which computes the same. The first version
# recorded one of all of budgetflow, one of each module behind a field (here as they follow each
# other), and none of what decides (here: its digest of all, and the kind of study).
EQUAL: dict[str, str] = {
    "007ad5179825ef0b": "c30e16de3bc05b69",
    "153034a2704a7ce3": "b3896ee800b83e98",
    "2675392f3354fb79": "8760647e4b26e77c",
    "6e84ffe8ff7ee7b2 92e0ea7b6fd96d04": "1e9b2da63a12de27",
    "8498281324d30a53": "f71de31ab8781a74",
    "898d8bba6ee6ed31": "b62246702f43df62",
    "898d8bba6ee6ed31 comparison": "f5342990d27ae478",
    "898d8bba6ee6ed31 cooldowns": "0231551ca1d4b171",
    "898d8bba6ee6ed31 lr_sweep": "5829548f96e4cd1b",
    "898d8bba6ee6ed31 round": "1b2a35bb5b9f2a1c",
    "898d8bba6ee6ed31 rounds": "1b2a35bb5b9f2a1c",
    "92e0ea7b6fd96d04 8b03101949a12fa2": "878d934237398e62",
    "92e0ea7b6fd96d04 a72ab2a428e33532": "a37cb083db3c5841",
    "b0888b9ae1706263 f552549f6cb774c2": "1d743a136f0c4400",
    "c19ec3f0298a12d7 f800ebc8a325f3b8": "7cbec1a04fc3c132",
}
