"""The contract of jobs/contract.py on the local launcher, with real processes."""

from pathlib import Path

import pytest

from jobs import contract
from jobs.launchers.local import LocalLauncher

# These wait out the five seconds that a rank has between TERM and KILL.
WITH_GRACE = {
    contract.check_a_cancel_ends_stubborn_ranks_and_what_they_started,
    contract.check_a_failed_rank_gives_its_cause_to_those_ended_for_it,
}


@pytest.mark.parametrize("name", [check.__name__ for check in contract.CHECKS if check not in WITH_GRACE])
def test_the_local_launcher_keeps_the_contract(name: str, local: LocalLauncher, folder: Path) -> None:
    getattr(contract, name)(local, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(check.__name__ for check in WITH_GRACE))
def test_the_local_launcher_keeps_the_contract_with_stubborn_ranks(
    name: str, local: LocalLauncher, folder: Path
) -> None:
    getattr(contract, name)(local, folder)


def test_every_check_is_in_the_suite() -> None:
    assert [value for name, value in vars(contract).items() if name.startswith("check_")] == list(contract.CHECKS)
