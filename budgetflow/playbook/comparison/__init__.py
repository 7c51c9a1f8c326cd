"""What a change of the configuration does to the number of steps that training needs.

- ``policy.py``: the races with and without the change, the factor, and the outcome.
- ``outcome.py``: what a comparison has found.
- ``direction.py``: which way the playbook expects each change to push the number of steps.
- ``gradient_noise.py``: the simple gradient-noise scale, from which a factor is predicted.
- ``words.py``: the sentences of the outcome, and of studies that depart from a sweep.

What is known of another config field goes into the tables of ``direction.py``.
"""
