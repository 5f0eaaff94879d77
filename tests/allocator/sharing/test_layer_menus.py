import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.sharing.layer_menus import Menu, improve_worst, layer_menus, menu_of


def test_every_choice_of_a_menu_gives_all_caches_the_same_bytes() -> None:
    problem = Problem([[8.0, 4.0, 1.0], [6.0, 3.0, 2.0]], [[2, 5, 9], [4, 5, 7]], 9)
    menu = menu_of(problem, range(2))
    # at most 2, 4, 5, 7 and 9 bytes; the second cache has no level below 4
    assert menu.levels.tolist() == [[0, 0], [0, 0], [1, 1], [1, 2], [2, 2]]
    assert menu.cost_bytes.tolist() == [6, 6, 10, 12, 16]
    assert menu.loss.tolist() == [11, 11, 4, 3, 0]


def test_of_levels_of_equal_cost_the_best_is_on_the_menu() -> None:
    problem = Problem([[8.0, 4.0, 1.0]], [[2, 2, 3]], 9)
    assert menu_of(problem, range(1)).levels.tolist() == [[1], [2]]


def test_there_is_a_menu_for_each_layer(problem: Problem) -> None:
    menus = layer_menus(problem)
    assert len(menus) == 3
    assert all((menu.levels[0] == 0).all() for menu in menus)
    assert menus[2].loss[0] == (problem.loss[4:, 0] - problem.loss[4:, -1]).sum()


@given(st.data())
def test_no_other_choice_has_a_smaller_largest_loss(data: st.DataObject) -> None:
    menus = []
    for _ in range(data.draw(st.integers(1, 4))):
        steps = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4))
        cost = np.cumsum([3, *(price for price, _ in steps)])
        drop = np.cumsum([0, *(gain for _, gain in steps)])
        menus.append(Menu(np.zeros((len(cost), 1)), cost, (drop[-1] - drop).astype(np.float64)))
    left = data.draw(st.integers(0, 30))
    chosen = improve_worst(menus, left)

    def spent(choice: tuple[int, ...]) -> int:
        return sum(int(m.cost_bytes[c] - 3) for m, c in zip(menus, choice, strict=True))

    def losses(choice: tuple[int, ...]) -> list[float]:
        return [float(m.loss[c]) for m, c in zip(menus, choice, strict=True)]

    every = itertools.product(*(range(len(menu.loss)) for menu in menus))
    assert spent(tuple(chosen)) <= left
    assert max(losses(tuple(chosen))) == min(max(losses(c)) for c in every if spent(c) <= left)
    # and no layer could still be improved
    for layer, menu in enumerate(menus):
        for choice in range(chosen[layer] + 1, len(menu.loss)):
            if menu.loss[choice] < menu.loss[chosen[layer]]:
                change = (*chosen[:layer], choice, *chosen[layer + 1 :])
                assert spent(change) > left
