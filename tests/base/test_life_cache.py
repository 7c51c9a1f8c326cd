import gc
import weakref

from budgetflow.base.life_cache import cached_for_its_life


class Large:
    """Stands for a data set."""


def test_a_result_is_computed_once_and_goes_with_its_object():
    computed = []

    @cached_for_its_life
    def size(of):
        computed.append(1)
        return 3

    one, other = Large(), Large()
    assert [size(one), size(one), size(other)] == [3, 3, 3]
    assert len(computed) == 2
    alive = weakref.ref(one)
    del one
    gc.collect()
    assert alive() is None
