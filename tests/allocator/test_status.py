from kvbudget.allocator import Status


def test_only_an_infeasible_solve_has_no_plan() -> None:
    assert [status for status in Status if not status.has_plan] == [Status.INFEASIBLE]


def test_every_status_is_a_message_of_its_own() -> None:
    assert len({status.value for status in Status}) == len(list(Status)) == 4
    assert all(status.value.endswith(".") for status in Status)
