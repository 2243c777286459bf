"""What fits into a budget, against a walk through all choices."""

import pytest

from airtune.methods.adaptive import largest


@pytest.mark.parametrize("choices", [range(3, 9), range(3, 4), range(3, 3)], ids=str)
def test_the_largest_choice_that_fits(choices):
    sizes = {3: 10, 4: 10, 5: 12, 6: 20, 7: 20, 8: 31}
    for budget in range(9, 33):
        fitting = [choice for choice in choices if sizes[choice] <= budget]
        assert largest(choices, sizes.__getitem__, budget) == (fitting[-1] if fitting else None)
